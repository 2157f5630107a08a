"""Rows of a LeRobot folder, by their own keys: each says in `episode_index` and `frame_index` where it belongs.

What tables and counts elsewhere say about boundaries is not used. Rows may lie in any file and in any order; missing
and repeated frames are refused with the file and the episode named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_array
from failsight.core.types import Array
from failsight.storage.disk import reason
from failsight.storage.parquet import read_table

MOST_ROWS = 50_000_000
MOST_BYTES = 8 * 2**30
"""Of the columns wanted from one file, uncompressed."""
_KEYS = ("episode_index", "frame_index", "task_index")


class EpisodeRows(NamedTuple):
    """One episode's T rows in order of their frames."""

    table: pa.Table
    times: Array
    """(T,) seconds since the episode's start, as the rows say."""
    tasks: Array
    """(T,) index of the task of each row."""
    where: str


class Rows:
    """All rows of a folder."""

    def __init__(self, root: Path, fps: float) -> None:
        """Raises EpisodeDataError when a file is damaged, or keys are missing."""
        self.root, self._fps = root, fps
        self.files = [p for p in sorted((root / "data").rglob("*.parquet")) if not p.name.startswith(".")]
        if not self.files:
            raise EpisodeDataError(f"{root} has no files in data/.")
        parts = [self._keys(number, path) for number, path in enumerate(self.files)]
        self._file, self._row, episode, frame, self._task, self._time = (
            np.concatenate(c) for c in zip(*parts, strict=True)
        )
        if len(self._file) > MOST_ROWS:
            raise EpisodeDataError(f"{root} has {len(self._file)} rows; at most {MOST_ROWS} are read.")
        self._order = np.lexsort((frame, episode))
        self._frame, self._episode = frame[self._order], episode[self._order]
        self.episodes, self._first = np.unique(self._episode, return_index=True)
        self._open: tuple[int, tuple[str, ...], pa.Table] | None = None

    def _keys(self, number: int, path: Path) -> tuple[Array, ...]:
        have = read_schema(path).names
        missing = [name for name in _KEYS if name not in have]
        if missing:
            raise EpisodeDataError(f"{path} has no column {missing[0]}; rows cannot be told apart without it.")
        table = read_columns(path, [*_KEYS, *(["timestamp"] if "timestamp" in have else [])])
        episode, frame, task = (_whole(table, name, path) for name in _KEYS)
        time = vectors(table, "timestamp", 1, str(path), np.float64)[:, 0] if "timestamp" in have else frame / self._fps
        count = table.num_rows
        return np.full(count, number), np.arange(count), episode, frame, task, np.asarray(time, np.float64)

    def length(self, episode: int) -> int:
        """How many rows an episode has; 0 when there are none."""
        at = np.searchsorted(self._episode, (episode, episode + 1))
        return int(at[1] - at[0])

    def read(self, episode: int, columns: Sequence[str]) -> EpisodeRows:
        """Rows of an episode. Raises EpisodeDataError: frames missing or repeated, time that stands or jumps."""
        first = int(np.searchsorted(self._episode, episode))
        rows = self._order[first : first + self.length(episode)]
        frames = self._frame[first : first + len(rows)]
        path = self.files[self._file[rows[0]]]
        where = f"{path}, episode {episode}"
        _require_whole(frames, where)
        times = self._time[rows]
        _require_rate(times, self._fps, where)
        return EpisodeRows(self._take(rows, tuple(columns)), times, self._task[rows], where)

    def _take(self, rows: Array, columns: tuple[str, ...]) -> pa.Table:
        files = self._file[rows]
        parts, places = [], []
        for number in np.unique(files):
            at = np.flatnonzero(files == number)
            parts.append(_pick(self._columns(int(number), columns), self._row[rows[at]]))
            places.append(at)
        if len(parts) == 1:
            return parts[0]
        return pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(places))))

    def _columns(self, number: int, columns: tuple[str, ...]) -> pa.Table:
        if self._open is None or self._open[:2] != (number, columns):
            self._open = (number, columns, read_columns(self.files[number], columns))
        return self._open[2]

    def extent(self, name: str, size: int) -> tuple[Array, Array]:
        """(size,), (size,) smallest and largest value of a vector over all rows."""
        low, high = np.full(size, np.inf), np.full(size, -np.inf)
        for path in self.files:
            values = vectors(read_columns(path, [name]), name, size, str(path))
            low, high = np.minimum(low, values.min(0)), np.maximum(high, values.max(0))
        return low, high


def _pick(table: pa.Table, rows: Array) -> pa.Table:
    if (np.diff(rows) == 1).all():
        return table.slice(int(rows[0]), len(rows))
    return table.take(pa.array(rows))


def _require_whole(frames: Array, where: str) -> None:
    steps = np.diff(frames)
    if (steps == 0).any():
        raise EpisodeDataError(f"{where}: frame {frames[np.argmax(steps == 0)]} occurs twice; remove the copy.")
    if (steps != 1).any():
        at = int(np.argmax(steps != 1))
        raise EpisodeDataError(
            f"{where}: frame_index jumps from {frames[at]} to {frames[at + 1]}; frames are missing, so steps are not "
            "evenly spaced. Leave the episode out or record it again."
        )


def _require_rate(times: Array, fps: float, where: str) -> None:
    steps = np.diff(times) * fps
    if not len(steps):
        return
    if (steps <= 0).any():
        at = int(np.argmax(steps <= 0)) + 1
        raise EpisodeDataError(f"{where}: time does not increase at row {at} ({times[at - 1]:g}, {times[at]:g} s).")
    if (steps > 1.5).any() and np.median(steps) <= 1.5:
        at = int(np.argmax(steps > 1.5)) + 1
        raise EpisodeDataError(
            f"{where}: time jumps from {times[at - 1]:g} to {times[at]:g} s at row {at}, {steps[at - 1]:.1f} steps; "
            "frames are missing."
        )
    usual = float(steps.mean())
    if abs(usual - 1) > max(0.02, 0.5 / len(steps)):
        raise EpisodeDataError(
            f"{where}: rows are {usual / fps:.4g} s apart and meta/info.json says {fps:g} per second; correct one of them."
        )


def read_schema(path: Path) -> pa.Schema:
    """Columns of a Parquet file. Raises EpisodeDataError when it is none."""
    try:
        return pq.read_schema(path)
    except (OSError, ValueError, pa.ArrowException, MemoryError) as error:
        raise EpisodeDataError(f"Cannot read {path} ({reason(error)}); the file is damaged or missing.") from error


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a Parquet file, checksums verified. Raises EpisodeDataError: damaged, missing, too large."""
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise EpisodeDataError(f"{path} has no column {missing[0]}.")
            _require_bounded(file, columns, path)
    except (OSError, ValueError, pa.ArrowException, MemoryError, OverflowError) as error:
        raise EpisodeDataError(f"Cannot read {path} ({reason(error)}); the file is damaged or missing.") from error
    return read_table(path, columns)


def _require_bounded(file: pq.ParquetFile, columns: Sequence[str], path: Path) -> None:
    """Refuse what would not fit into memory, by its own declaration."""
    size = 0
    for group in range(file.metadata.num_row_groups):
        row_group = file.metadata.row_group(group)
        for i in range(row_group.num_columns):
            column = row_group.column(i)
            if column.path_in_schema.split(".")[0] in columns or column.path_in_schema in columns:
                size += max(column.total_uncompressed_size, 4 * column.num_values)
    if size > MOST_BYTES or file.metadata.num_rows > MOST_ROWS:
        raise EpisodeDataError(
            f"{path} declares {file.metadata.num_rows} rows and {size / 2**30:.1f} GiB; at most {MOST_ROWS} rows and "
            f"{MOST_BYTES / 2**30:g} GiB are read from one file."
        )


def _whole(table: pa.Table, name: str, path: Path) -> Array:
    """(N,) int64 keys, none negative."""
    column = table.column(name)
    values = vectors(table, name, 1, str(path), np.float64 if not pa.types.is_integer(column.type) else np.int64)[:, 0]
    if len(values) and ((values != np.rint(values)).any() or values.min() < 0 or values.max() >= 2**53):
        raise EpisodeDataError(f"{path}: {name} holds numbers that are no indices.")
    return np.asarray(values, np.int64)


def vectors(table: pa.Table, name: str, size: int, where: str, dtype: type = np.float32) -> Array:
    """A column as (N, size) finite numbers. Raises EpisodeDataError: another size, gaps, text, not finite."""
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    count, kind = len(column), column.type
    if column.null_count:
        raise EpisodeDataError(f"{where}: {name} is missing in {column.null_count} of {count} rows.")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = (
            np.asarray(column.value_lengths())
            if not pa.types.is_fixed_size_list(kind)
            else np.full(count, kind.list_size)
        )
        if (lengths != size).any():
            row = int(np.argmax(lengths != size))
            raise EpisodeDataError(
                f"{where}: {name} has {lengths[row]} entries at row {row} and meta/info.json says {size}."
            )
        column = column.flatten()
    elif size != 1:
        raise EpisodeDataError(f"{where}: {name} is {kind} and meta/info.json says {size} entries.")
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)) or column.null_count:
        found = f"{column.null_count} empty entries" if column.null_count else str(column.type)
        raise EpisodeDataError(f"{where}: {name} should hold numbers, found {found}.")
    values = np.asarray(column.to_numpy(zero_copy_only=False)).reshape(count, size)
    if dtype is not np.float32:
        if not np.isfinite(values).all():
            raise EpisodeDataError(
                f"{where}: {name} is not finite at row {int(np.argmin(np.isfinite(values).all(1)))}."
            )
        return values.astype(dtype)
    return read_array(values, f"{where}, {name}", (None, size)) if count else np.zeros((0, size), np.float32)


__all__ = ["EpisodeRows", "Rows", "read_columns", "read_schema", "vectors"]
