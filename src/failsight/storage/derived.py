"""Tables made from a run and kept in it (labels, verdicts): they name the run, so that another run's are refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from failsight.core.errors import EpisodeDataError
from failsight.storage.parquet import footer_digest, read_table, write_table

_RUN = b"run"


def write_derived(root: Path, path: Path, table: pa.Table) -> None:
    """Write a table made from the run at `root`. Raises StorageError when the disk refuses."""
    metadata = {**(table.schema.metadata or {}), _RUN: _identity(root).encode()}
    write_table(path, table.replace_schema_metadata(metadata))


def read_derived(root: Path, path: Path) -> pa.Table:
    """Read it again. Raises EpisodeDataError naming the file when it is damaged or was made from another run."""
    table = read_table(path)
    made_from = (table.schema.metadata or {}).get(_RUN, b"").decode("utf-8", "replace")
    if made_from not in ("", _identity(root)):
        raise EpisodeDataError(f"{path} was made from another run than {root}; delete it and make it again.")
    return table


def _identity(root: Path) -> str:
    """Changes with every episode of the run; empty for a run of an older version."""
    try:
        return footer_digest(root / "meta/failsight/episodes.parquet")
    except (OSError, ValueError):
        return ""
