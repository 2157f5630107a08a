"""Sealing: committed recordings -> LeRobotDataset v3.0 layout, every tool of that ecosystem opens it.

The layout is built in `sealing/` and moved into place file by file; `meta/info.json` comes last, so a run without it is
simply not sealed and sealing starts over. Row groups hold at most 100 rows. Statistics are written per episode and over
the run, pictures included, so that LeRobot trains on a run and its split, merge and delete keep them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array
from failsight.episodes.consistency import INDEX_COLUMNS, with_steps
from failsight.episodes.layout import empty_steps, run_info
from failsight.episodes.meta import EpisodeMeta, RunMeta
from failsight.episodes.recorder import VERDICTS, clear_recordings, committed_tickets, episode_folder, to_arrow
from failsight.episodes.verdicts import judge_of, store_verdicts
from failsight.storage.checksums import PLACE, checksums_json
from failsight.storage.disk import reason, writing
from failsight.storage.parquet import TableWriter, footer_digest, read_table, write_frame
from failsight.storage.statistics import Entry, PictureLevels, as_columns, levels_of_video, vector_statistics
from failsight.storage.video import frames_per_second

_ROW_GROUP = 100
_FILE_BYTES = 100 * 2**20


def seal(root: Path) -> None:
    """Turn `root/recording` into the final layout.

    Raises EpisodeDataError when episodes of the plan are missing or damaged, StorageError when the disk refuses.
    """
    run = RunMeta.read(root / "meta/failsight/run.json")
    tickets = committed_tickets(root)
    if tickets != list(range(len(run.plan))):
        raise EpisodeDataError(
            f"{root} has {len(tickets)} of {len(run.plan)} episodes; finish it with: failsight collect --out {root} --resume"
        )
    build = root / "sealing"
    with writing(root, "Free space, then run it again."):
        shutil.rmtree(build, ignore_errors=True)
        _build(root, run, tickets, build)
        last = build / "meta/info.json"
        for path in sorted(p for p in build.rglob("*") if p.is_file() and p != last):
            _move(path, root / path.relative_to(build))
        _move(last, root / "meta/info.json")
    clear_leftovers(root)


def clear_leftovers(root: Path) -> None:
    """Remove what an ended process left in a sealed run; only folders of our own names are touched."""
    shutil.rmtree(root / "sealing", ignore_errors=True)
    clear_recordings(root)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def _build(root: Path, run: RunMeta, tickets: list[int], build: Path) -> None:
    metas = [read_episode_meta(episode_folder(root, t)) for t in tickets]
    instructions = sorted({meta.instruction for meta in metas})
    fps = frames_per_second(run.action_spec.rate_hz)
    filmed = bool(with_steps(metas)) and all(meta.video for meta in with_steps(metas))
    writer, pictures = _DataWriter(build / "data", fps, empty_steps(run)), _Pictures(root, run, build, fps)
    rows: list[dict[str, Any]] = []
    for meta in with_steps(metas):
        row = writer.add(read_steps(episode_folder(root, meta.ticket)), instructions.index(meta.instruction))
        row["tasks"] = [meta.instruction]
        rows.append(row | pictures.add(meta, filmed))
    writer.close()
    _write_tables(root, build, metas, rows, instructions)
    _join_verdicts(root, build, tickets)
    info = run_info(run, writer.schema, (writer.episodes, writer.frames, len(instructions)), fps, filmed)
    (build / "meta/info.json").write_text(json.dumps(info, indent=1))
    statistics = writer.statistics() | (pictures.statistics() if filmed else {})
    (build / "meta/stats.json").write_text(json.dumps(statistics, indent=1))
    run_json = ("meta/failsight/run.json", root / "meta/failsight/run.json")
    derived = build / "verdicts"
    files = [(p.relative_to(build).as_posix(), p) for p in build.rglob("*") if p.is_file() and derived not in p.parents]
    (build / PLACE).write_text(checksums_json([*files, run_json], footer_digest))


class _DataWriter:
    """Appends episodes to `data/chunk-000/file-NNN.parquet`, starting a new file at about 100 MB."""

    def __init__(self, folder: Path, fps: float, empty: pa.Table) -> None:
        self._folder, self._fps, self._empty = folder / "chunk-000", fps, empty
        self._folder.mkdir(parents=True)
        self._file, self._bytes, self.episodes, self.frames = 0, 0, 0, 0
        self._writer: TableWriter | None = None
        self.schema: pa.Schema | None = None
        self._samples: dict[str, list[Array]] = {}

    def add(self, steps: pa.Table, task: int) -> dict[str, Any]:
        """Write one episode; returns its row of the LeRobot episode table."""
        index, count = self.episodes, steps.num_rows
        table = self._indexed(steps, index, task)
        statistics = self._keep(table)
        self._write(table, index)
        row = {
            "episode_index": index,
            "length": count,
            "data/chunk_index": 0,
            "data/file_index": self._file,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + count,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        self.episodes, self.frames = index + 1, self.frames + count
        return row | as_columns(statistics)

    def _indexed(self, table: pa.Table, index: int, task: int) -> pa.Table:
        count = table.num_rows
        frame = np.arange(count, dtype=np.int64)
        for name, values in (
            ("timestamp", (frame / self._fps).astype(np.float32)),
            ("frame_index", frame),
            ("episode_index", np.full(count, index, np.int64)),
            ("index", frame + self.frames),
            ("task_index", np.full(count, task, np.int64)),
        ):
            table = table.append_column(name, pa.array(values))
        return table

    def _write(self, table: pa.Table, index: int) -> None:
        if self._writer is not None and self._bytes + table.nbytes > _FILE_BYTES:
            self._writer.close()
            self._writer, self._file, self._bytes = None, self._file + 1, 0
        if self._writer is None:
            self.schema = self.schema or table.schema
            self._writer = TableWriter(self._folder / f"file-{self._file:03d}.parquet", self.schema, _ROW_GROUP)
        if table.schema != self.schema:
            raise EpisodeDataError(f"Episode {index} has other columns than the ones before it: {table.schema.names}.")
        self._writer.write(table)
        self._bytes += table.nbytes

    def _keep(self, table: pa.Table) -> dict[str, Entry]:
        """Statistics of the episode; tensors of the policy have none, LeRobot normalises none of them."""
        result = {}
        for name in table.column_names:
            if name.startswith("policy.") and name != "policy.latency_ms":
                continue
            values = column_values(table, name)
            values = values[:, None] if values.ndim == 1 else values
            self._samples.setdefault(name, []).append(values.astype(np.float64))
            result[name] = vector_statistics(self._samples[name][-1])
        return result

    def statistics(self) -> dict[str, Entry]:
        """Over all episodes."""
        return {name: vector_statistics(np.concatenate(parts)) for name, parts in self._samples.items()}

    def close(self) -> None:
        """Finish the open file; a run without a single step gets an empty one."""
        if self._writer is None:
            self._write(self._indexed(self._empty, 0, 0), 0)
        assert self._writer is not None
        self._writer.close()


class _Pictures:
    """Puts one MP4 per filmed episode and camera in place, where LeRobot finds it through the file index."""

    def __init__(self, root: Path, run: RunMeta, build: Path, fps: float) -> None:
        self._root, self._build, self._fps = root, build, fps
        self._levels = {f"observation.images.{name}": PictureLevels() for name, _, _ in run.observation_spec.cameras}

    def add(self, meta: EpisodeMeta, filmed: bool) -> dict[str, Any]:
        """The episode's columns of the LeRobot episode table: places, and statistics when all were `filmed`."""
        row: dict[str, Any] = {}
        for key, total in self._levels.items():
            levels = PictureLevels()
            if meta.video:
                source = episode_folder(self._root, meta.ticket) / f"{key.removeprefix('observation.images.')}.mp4"
                chunk, file = divmod(meta.ticket, 1000)
                target = self._build / "videos" / key / f"chunk-{chunk:03d}" / f"file-{file:03d}.mp4"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
                levels = levels_of_video(source) if filmed else levels
                row |= _segment(key, chunk, file, meta.length / self._fps)
            if filmed:
                total.join(levels)
                row |= as_columns({key: levels.statistics()})
        return row

    def statistics(self) -> dict[str, Entry]:
        """Over all episodes."""
        return {key: levels.statistics() for key, levels in self._levels.items()}


def _segment(key: str, chunk: int, file: int, seconds: float) -> dict[str, Any]:
    return {
        f"videos/{key}/chunk_index": chunk,
        f"videos/{key}/file_index": file,
        f"videos/{key}/from_timestamp": 0.0,
        f"videos/{key}/to_timestamp": seconds,
    }


def _write_tables(
    root: Path, build: Path, metas: list[EpisodeMeta], rows: list[dict[str, Any]], instructions: list[str]
) -> None:
    tasks = pd.DataFrame({"task_index": np.arange(len(instructions))}, index=pd.Index(instructions, name="task"))
    write_frame(build / "meta/tasks.parquet", tasks)
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["episode_index", *INDEX_COLUMNS])
    write_frame(build / "meta/episodes/chunk-000/file-000.parquet", table)
    write_frame(build / "meta/failsight/episodes.parquet", pd.DataFrame([asdict(meta) for meta in metas]))
    events = [{"ticket": meta.ticket, **event} for meta in metas for event in _events(root, meta.ticket)]
    columns = ["ticket", "step", "kind", "subject", "other", "value", "position", "normal"]
    write_frame(build / "meta/failsight/events.parquet", pd.DataFrame(events, columns=columns))


def _join_verdicts(root: Path, build: Path, tickets: list[int]) -> None:
    tables: dict[Any, list[pa.Table]] = {}
    for ticket in tickets:
        path = episode_folder(root, ticket) / VERDICTS
        if path.is_file():
            table = read_table(path)
            tables.setdefault(judge_of(table), []).append(table)
    for some in tables.values():
        store_verdicts(build, some)


def _events(root: Path, ticket: int) -> Iterator[dict[str, Any]]:
    path = episode_folder(root, ticket) / "events.json"
    try:
        yield from json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def read_episode_meta(folder: Path) -> EpisodeMeta:
    """Meta of a committed, unsealed episode. Raises EpisodeDataError naming the file when it is damaged."""
    path = folder / "episode.json"
    try:
        return EpisodeMeta.from_dict(json.loads(path.read_text()), str(path))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def read_steps(folder: Path) -> pa.Table:
    """Steps of an unsealed episode. Raises EpisodeDataError when the stream is cut off."""
    try:
        with pa.OSFile(str(folder / "steps.arrows")) as source:
            return pa.ipc.open_stream(source).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(folder / "steps.arrows", error) from error


def _damaged(path: Path, error: Exception) -> EpisodeDataError:
    return EpisodeDataError(
        f"Cannot read {path} ({reason(error)}); it is damaged. Delete the folder {path.parent} and go on with: "
        f"failsight collect --out {path.parents[2]} --resume"
    )


def column_values(table: pa.Table, name: str) -> Array:
    """A column as (N,) or (N, D), whatever list type and row grouping wrote it.

    Raises EpisodeDataError when a row is missing or the rows differ in length.
    """
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(lengths) > 1 or lengths == [None]:
            raise EpisodeDataError(f"The rows of column {name} differ in length ({lengths[:3]}).")
        width = lengths[0] if lengths else getattr(column.type, "list_size", 0)
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), width)
    return np.asarray(column.to_numpy(zero_copy_only=False))


__all__ = ["column_values", "read_episode_meta", "read_steps", "seal", "to_arrow"]
