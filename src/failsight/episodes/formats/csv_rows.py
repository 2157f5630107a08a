"""CSV with a header, one row per step: numbers are numbers or the file is refused; an empty cell is a missing value."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import one_line, require_distinct
from failsight.episodes.formats.fields import SCALARS, Fields
from failsight.episodes.formats.format import Format, LogFormat
from failsight.episodes.formats.mapped import Source
from failsight.episodes.formats.rows import Column, Sheet, sheets_of

FILE_LIMIT = 2**30
"""Bytes of a file."""
_HEADER_LIMIT = 2**20
SAFE_NAME = re.compile(r"(?P<task>task\d+)--ep(?P<episode>\d+)--succ(?P<success>[01])\.csv")
"""A file of SAFE's: which task, which episode, and how it ended."""


def column_names(path: Path) -> tuple[str, ...]:
    """The header. Raises EpisodeDataError when it cannot be read or has a name twice."""
    try:
        with path.open("rb") as file:
            line = file.readline(_HEADER_LIMIT)
        names = next(csv.reader([line.decode("utf-8-sig")]), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EpisodeDataError(f"{path} cannot be read ({one_line(str(error))}); save it as UTF-8 text.") from error
    if not any(names):
        raise EpisodeDataError(f"{path} has no header; its first line names the columns.")
    require_distinct(names, str(path), "the column")
    return tuple(names)


def read_columns(path: Path, fields: Fields) -> Mapping[str, Column]:
    """The wanted columns. Raises EpisodeDataError naming the file, and the row where there is one."""
    if path.stat().st_size > FILE_LIMIT:
        raise EpisodeDataError(f"{path} is larger than {FILE_LIMIT >> 20} MiB; split it.")
    text = {name for role in SCALARS for name in fields[role]}
    free = set(fields["signals"]) if fields.assumed else set()
    types = {name: pa.string() if name in text else pa.float64() for name in fields.wanted if name not in free}
    convert = pc.ConvertOptions(column_types=types, include_columns=list(fields.wanted))
    try:
        table = pc.read_csv(path, convert_options=convert, read_options=pc.ReadOptions(use_threads=False))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise EpisodeDataError(f"{path} cannot be read: {one_line(str(error))}.") from error
    if not table.num_rows:
        raise EpisodeDataError(f"{path} holds no row.")
    return {name: _values(table.column(name), name in text) for name in table.column_names}


def _values(column: pa.ChunkedArray, text: bool) -> Column:
    plain = pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)
    values: Column = column.to_pylist() if text or not plain else column.cast(pa.float64()).to_numpy()
    return values


def _sheets(path: Path, fields: Fields) -> Iterator[Sheet]:
    return sheets_of(str(path), read_columns(path, fields), fields)


def _names(path: Path) -> tuple[str, ...]:
    """The header; none for the files of SAFE, whose rows are described beside them."""
    return () if SAFE_NAME.fullmatch(path.name) else column_names(path)


_SOURCE = Source(kind="CSV", suffixes=(".csv", ".CSV"), names=_names, sheets=_sheets)
FORMAT: LogFormat = Format(name="csv", sniff=_SOURCE.sniff, read=_SOURCE.read)
