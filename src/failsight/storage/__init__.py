"""Layer `storage`: bytes on disk that are whole or refused: locks, checksums, tables, films, containers of others. Knows no episode."""
