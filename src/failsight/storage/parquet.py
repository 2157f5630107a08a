"""Every Parquet file of failsight is written and read here, so that a flipped bit is found and never read as a number.

Pages carry the format's own CRC-32, verified at each read. It does not cover the footer, which says where the pages are
and what their bytes mean; a SHA-256 of the footer therefore stands in the 40 bytes before it, where other readers do
not look. Files of others, and of older versions, have neither and are read as they are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from failsight.core.errors import EpisodeDataError
from failsight.storage.disk import reason, writing

_MARK = b"FSFOOTER"
_SEAL_BYTES = len(_MARK) + hashlib.sha256().digest_size
_TAIL = 8
"""Length of the footer and `PAR1`, the last bytes of every Parquet file."""


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole file (or some columns). Raises EpisodeDataError naming the file when it is missing or damaged."""
    try:
        with path.open("rb") as file:
            footer = _footer(file)
            if footer.seal not in (b"", hashlib.sha256(footer.content).digest()):
                raise ValueError("its footer does not match its checksum")
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            return parquet.read(columns=None if columns is None else list(columns))
    except (OSError, ValueError, pa.ArrowException, MemoryError, OverflowError) as error:
        raise EpisodeDataError(f"Cannot read {path} ({reason(error)}); the file is damaged or missing.") from error


def read_frame(path: Path) -> pd.DataFrame:
    """The same as a pandas frame."""
    table = read_table(path)
    try:
        return table.to_pandas()
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise EpisodeDataError(f"Cannot read {path} ({reason(error)}); the file is damaged.") from error


def footer_digest(path: Path) -> str:
    """SHA-256 of the footer as the file carries it; empty when it was not written here. Raises OSError, ValueError."""
    with path.open("rb") as file:
        return _footer(file).seal.hex()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a whole file, atomically. Raises StorageError when the disk refuses; nothing half-written stays."""
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            writer = TableWriter(partial, table.schema)
            writer.write(table)
            writer.close()
            os.replace(partial, path)
        except (OSError, pa.ArrowException):
            partial.unlink(missing_ok=True)
            raise


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a pandas frame; an unnamed index is dropped, a named one is kept as pandas keeps it."""
    write_table(path, pa.Table.from_pandas(frame, preserve_index=bool(frame.index.name)))


class TableWriter:
    """Appends tables of one schema to a file; the file counts once closed.

    No dictionary: for float columns it is 4-5 times slower and 11 % larger.
    """

    def __init__(self, path: Path, schema: pa.Schema, row_group: int | None = None) -> None:
        self._path, self._row_group = path, row_group
        self._writer = pq.ParquetWriter(
            path, schema, use_dictionary=False, compression="snappy", write_page_checksum=True
        )

    def write(self, table: pa.Table) -> None:
        """Append rows. Raises OSError when the disk refuses."""
        self._writer.write_table(table, row_group_size=self._row_group)

    def close(self) -> None:
        """Write the footer and its checksum."""
        self._writer.close()
        with self._path.open("r+b") as file:
            footer = _footer(file)
            file.seek(footer.start)
            seal = _MARK + hashlib.sha256(footer.content).digest()
            file.write(seal + footer.content + len(footer.content).to_bytes(4, "little") + b"PAR1")


class _Footer(NamedTuple):
    start: int
    content: bytes
    seal: bytes
    """SHA-256 that stands before it; empty in files that were not written here."""


def _footer(file: BinaryIO) -> _Footer:
    """Raises ValueError when the file has none."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    start = size - _TAIL - int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or start < 4:
        raise ValueError("it does not end like a Parquet file")
    before = min(_SEAL_BYTES, start)
    file.seek(start - before)
    seal, content = file.read(before), file.read(size - _TAIL - start)
    return _Footer(start, content, seal[len(_MARK) :] if seal.startswith(_MARK) else b"")


def damaged_rows(path: Path) -> list[range] | None:
    """Rows of the row groups that cannot be read; None when the footer itself is damaged or missing."""
    try:
        read_table(path, [])
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
            starts = np.cumsum([0, *sizes])
            return [range(starts[i], starts[i + 1]) for i in range(len(sizes)) if not _readable(parquet, i)]
    except (EpisodeDataError, OSError, ValueError, pa.ArrowException):
        return None


def _readable(parquet: pq.ParquetFile, group: int) -> bool:
    try:
        parquet.read_row_group(group)
    except (OSError, ValueError, pa.ArrowException, MemoryError):
        return False
    return True
