"""Parquet tables with names of their own: a row is a step, or an episode with lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import one_line, require_distinct
from failsight.episodes.formats.fields import SCALARS, Fields
from failsight.episodes.formats.format import Format, LogFormat
from failsight.episodes.formats.mapped import LOG_LIMIT, Source, numbers
from failsight.episodes.formats.rows import Column, Sheet, sheets_of
from failsight.storage.parquet import read_table

ROWS = 10_000_000
"""Rows of a file."""


def parquet_names(path: Path) -> tuple[str, ...]:
    """Names of the columns. Raises EpisodeDataError when the file is damaged, or larger than the limits."""
    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
            names = tuple(file.schema_arrow.names)
    except (OSError, ValueError, pa.ArrowException, MemoryError) as error:
        raise EpisodeDataError(f"{path} cannot be read ({one_line(str(error))}); it is damaged.") from error
    if rows > ROWS or size > LOG_LIMIT:
        raise EpisodeDataError(f"{path} has {rows} rows and {size >> 20} MiB; at most {ROWS} and {LOG_LIMIT >> 20}.")
    require_distinct(names, str(path), "the column")
    return names


def parquet_sheets(path: Path, fields: Fields) -> Iterator[Sheet]:
    """The episodes of a table. Raises EpisodeDataError naming the row or column."""
    missing = set(fields.wanted) - set(parquet_names(path))
    if missing:
        raise EpisodeDataError(f"{path} has no {', '.join(sorted(missing)[:6])}, which the first file has.")
    table = read_table(path, fields.wanted)
    if not table.num_rows:
        raise EpisodeDataError(f"{path} holds no row.")
    scalars = {fields.one(role) for role in SCALARS}
    columns = {name: _column(table.column(name), name in scalars) for name in table.column_names}
    return sheets_of(str(path), columns, fields)


def _column(column: pa.ChunkedArray, scalar: bool) -> Column:
    kind = column.type
    if scalar or not _is_list(kind):
        numeric = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        values: Column = column.cast(pa.float64()).to_numpy() if numeric and not scalar else column.to_pylist()
        return values
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    inner = kind.value_type
    if len(lengths) == 1 and lengths[0] and (pa.types.is_floating(inner) or pa.types.is_integer(inner)):
        return np.asarray(pc.list_flatten(column).to_numpy().reshape(len(column), lengths[0]))
    return [numbers(value) for value in column.to_pylist()]


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


_SOURCE = Source(kind="Parquet", suffixes=(".parquet",), names=parquet_names, sheets=parquet_sheets)
FORMAT: LogFormat = Format(name="parquet", sniff=_SOURCE.sniff, read=_SOURCE.read)
