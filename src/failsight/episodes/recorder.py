"""Crash-safe recording of one episode: an Arrow stream flushed every 30 steps, fragmented MP4, one rename at the end.

What a killed process leaves behind is a folder ending in `.partial`; resuming deletes it and runs the episode again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from failsight.core.errors import EpisodeDataError, StorageError
from failsight.core.types import Array, Event, Step, Tick
from failsight.episodes.meta import EpisodeMeta
from failsight.episodes.verdicts import Judge, VerdictRow, row_of, verdict_table
from failsight.storage.disk import writing
from failsight.storage.parquet import write_table
from failsight.storage.video import VideoWriter

VERDICTS = "verdicts.parquet"
_FLUSH = 30
_FOLDER = re.compile(r"episode-(\d{6,})")


def episode_folder(root: Path, ticket: int) -> Path:
    """Where a committed episode waits for sealing."""
    return root / "recording" / f"episode-{ticket:06d}"


class EpisodeRecorder:
    """Collects the ticks of one episode on disk, as an `Observer`; nothing counts until `commit`."""

    name = "recorder"

    def __init__(
        self,
        root: Path,
        ticket: int,
        fps: float,
        cameras: Mapping[str, tuple[int, int]] | None = None,
        judge: Judge | None = None,
    ) -> None:
        """`cameras`: name -> (height, width) of what is filmed; `judge`: whose verdicts `add_verdict` brings."""
        self._ticket, self._judge = ticket, judge or Judge()
        self._final = episode_folder(root, ticket)
        self._partial = self._final.with_name(self._final.name + ".partial")
        self._rows: dict[str, list[Array]] = {}
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._events: list[Event] = []
        self._verdicts: list[VerdictRow] = []
        self.steps = 0
        """Steps recorded so far."""
        with writing(root, "Choose another --out."):
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)
            self._sink = pa.OSFile(str(self._partial / "steps.arrows"), "wb")
        self._videos = {
            name: VideoWriter(self._partial / f"{name}.mp4", height, width, fps)
            for name, (height, width) in (cameras or {}).items()
        }

    @property
    def wants_images(self) -> bool:
        """Whether this episode is filmed."""
        return bool(self._videos)

    def observe(self, tick: Tick) -> None:
        """Take in one tick of a loop. Raises EpisodeDataError for a step that is no data, StorageError for a full disk."""
        if tick.step is not None and tick.action is not None:
            self.add(tick.step, tick.action, tick.success, tick.over, tick.images)
            self.add_events(tick.events)
        if (row := row_of(tick)) is not None:
            self.add_verdict(row)

    def add(self, step: Step, executed: Array, success: bool, done: bool, images: Mapping[str, Array]) -> None:
        """Record one control step: what was seen, what the policy said, what was executed.

        `executed` (A,) is what was sent, in the units of the action spec; `images` are the (H, W, 3) uint8 pictures from
        before the action. Raises EpisodeDataError for a state or action that is not finite, or when parts of the policy
        output come or go.
        """
        output = step.output
        row: dict[str, Array] = {
            **({"observation.state": step.state} if len(step.state) else {}),
            "action": executed,
            "policy.chunk": output.chunk.ravel(),
            "policy.cursor": np.int64(step.cursor),  # type: ignore[dict-item]
            "policy.replan": np.bool_(step.replan),  # type: ignore[dict-item]
            "policy.latency_ms": np.float32(output.latency_ms if step.replan else 0.0),  # type: ignore[dict-item]
            "next.reward": np.float32(success),  # type: ignore[dict-item]
            "next.success": np.bool_(success),  # type: ignore[dict-item]
            "next.done": np.bool_(done),  # type: ignore[dict-item]
        }
        for name in ("hidden", "samples", "members", "failure"):
            value = getattr(output, name)
            if value is not None:
                row[f"policy.{name}"] = value.ravel()
        if not np.isfinite(step.state).all() or not np.isfinite(executed).all():
            raise EpisodeDataError(f"Step {step.index} has a state or action that is not finite.")
        if not self._rows:
            self._rows = {name: [] for name in row}
        if row.keys() != self._rows.keys():
            changed = ", ".join(sorted(row.keys() ^ self._rows.keys()))
            raise EpisodeDataError(
                f"{changed} came or went at step {step.index}; a policy returns the same at all steps."
            )
        for name, video in self._videos.items():
            video.add(images[f"observation.images.{name}"])
        for name, value in row.items():
            self._rows[name].append(value)
        self.steps += 1
        if len(self._rows["action"]) >= _FLUSH:
            self._flush()

    def add_events(self, events: Sequence[Event]) -> None:
        """Events that happened in the recorded steps."""
        self._events += events

    def add_verdict(self, row: VerdictRow) -> None:
        """What was judged, decided and guarded at one tick; kept in memory until `commit`."""
        self._verdicts.append(row)

    def _flush(self) -> None:
        if not self._rows or not self._rows["action"]:
            return
        names = list(self._rows)
        batch = pa.record_batch([to_arrow(np.stack(self._rows[name])) for name in names], names=names)
        with writing(self._partial, "Free disk space."):
            try:
                if self._writer is None:
                    self._writer = pa.ipc.new_stream(self._sink, batch.schema)
                self._writer.write_batch(batch)
                self._sink.flush()
            except OSError:
                self.abandon()
                raise
        self._rows = {name: [] for name in names}

    def commit(self, meta: EpisodeMeta) -> None:
        """Finish the files and rename the folder: from now on the episode counts.

        Raises StorageError when the disk refuses; then nothing of the episode stays.
        """
        self._flush()
        try:
            with writing(self._final, "Free disk space."):
                self._finish(meta)
        except StorageError:
            self.abandon()
            raise

    def _finish(self, meta: EpisodeMeta) -> None:
        if self._writer is not None:
            self._writer.close()
        self._sink.close()
        for video in self._videos.values():
            video.close()
        if self._verdicts:
            write_table(self._partial / VERDICTS, verdict_table(self._ticket, self._verdicts, self._judge))
        (self._partial / "events.json").write_text(json.dumps([asdict(event) for event in self._events]))
        (self._partial / "episode.json").write_text(json.dumps(asdict(meta)))
        os.replace(self._partial, self._final)

    def abandon(self) -> None:
        """Drop what was recorded."""
        self._sink.close()
        for video in self._videos.values():
            with suppress(StorageError):
                video.close()
        shutil.rmtree(self._partial, ignore_errors=True)


def to_arrow(values: Array) -> pa.Array:
    """(N,) -> plain column, (N, D) -> fixed-size list column."""
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def committed_tickets(root: Path) -> list[int]:
    """Tickets of committed, not yet sealed episodes; whatever else lies in the folder is not ours and ignored."""
    return sorted(int(name[1]) for path in _recordings(root) if (name := _FOLDER.fullmatch(path.name)))


def clear_recordings(root: Path, partial_only: bool = False) -> None:
    """Remove episode folders (or only those a dead process left half-done); nothing that is not ours is touched."""
    for path in _recordings(root):
        if path.name.endswith(".partial") or not partial_only:
            shutil.rmtree(path, ignore_errors=True)
    if not partial_only:
        with suppress(OSError):
            (root / "recording" / ".DS_Store").unlink(missing_ok=True)
            (root / "recording").rmdir()


def _recordings(root: Path) -> list[Path]:
    folder = root / "recording"
    if not folder.is_dir():
        return []
    named = (path for path in folder.iterdir() if _FOLDER.fullmatch(path.name.removesuffix(".partial")))
    return [path for path in named if path.is_dir()]
