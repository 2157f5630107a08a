"""Crash-safe recording of one episode: an Arrow stream flushed every 30 steps, fragmented MP4, one rename at the end.

What a killed process leaves behind is a folder ending in `.partial`; resuming deletes it and runs the episode again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from failsight.core.errors import EpisodeDataError, StorageError
from failsight.core.types import Array, Event, Step
from failsight.episodes.meta import EpisodeMeta
from failsight.episodes.video import VideoWriter

_FLUSH = 30


def episode_folder(root: Path, ticket: int) -> Path:
    """Where a committed episode waits for sealing."""
    return root / "recording" / f"episode-{ticket:06d}"


class EpisodeRecorder:
    """Collects the steps of one episode on disk; nothing counts until `commit`."""

    def __init__(self, root: Path, ticket: int, fps: int, cameras: Mapping[str, tuple[int, int]] | None = None) -> None:
        self._final = episode_folder(root, ticket)
        self._partial = self._final.with_name(self._final.name + ".partial")
        self._rows: dict[str, list[Array]] = {}
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._events: list[Event] = []
        try:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)
            self._sink = pa.OSFile(str(self._partial / "steps.arrows"), "wb")
        except OSError as error:
            raise StorageError(f"Cannot record into {root}: {error.strerror}. Choose another --out.") from error
        self._videos = {
            name: VideoWriter(self._partial / f"{name}.mp4", height, width, fps)
            for name, (height, width) in (cameras or {}).items()
        }

    @property
    def wants_images(self) -> bool:
        """Whether this episode is filmed."""
        return bool(self._videos)

    def add(self, step: Step, executed: Array, success: bool, done: bool, images: Mapping[str, Array]) -> None:
        """Record one control step: what was seen, what the policy said, what was executed."""
        output = step.output
        row: dict[str, Array] = {
            "observation.state": step.state,
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
        for name, value in row.items():
            self._rows[name].append(value)
        for name, video in self._videos.items():
            video.add(images[f"observation.images.{name}"])
        if len(self._rows["action"]) >= _FLUSH:
            self._flush()

    def add_events(self, events: list[Event]) -> None:
        """Events that happened in the recorded steps."""
        self._events += events

    def _flush(self) -> None:
        if not self._rows or not self._rows["action"]:
            return
        names = list(self._rows)
        batch = pa.record_batch([to_arrow(np.stack(self._rows[name])) for name in names], names=names)
        try:
            if self._writer is None:
                self._writer = pa.ipc.new_stream(self._sink, batch.schema)
            self._writer.write_batch(batch)
            self._sink.flush()
        except OSError as error:
            self.abandon()
            raise StorageError(f"Cannot record into {self._partial}: {error.strerror}. Free disk space.") from error
        self._rows = {name: [] for name in names}

    def commit(self, meta: EpisodeMeta) -> None:
        """Finish the files and rename the folder: from now on the episode counts."""
        self._flush()
        try:
            if self._writer is not None:
                self._writer.close()
            self._sink.close()
            for video in self._videos.values():
                video.close()
            (self._partial / "events.json").write_text(json.dumps([asdict(event) for event in self._events]))
            (self._partial / "episode.json").write_text(json.dumps(asdict(meta)))
            os.replace(self._partial, self._final)
        except OSError as error:
            self.abandon()
            raise StorageError(f"Cannot finish {self._final}: {error.strerror}. Free disk space.") from error

    def abandon(self) -> None:
        """Drop what was recorded."""
        self._sink.close()
        shutil.rmtree(self._partial, ignore_errors=True)


def to_arrow(values: Array) -> pa.Array:
    """(N,) -> plain column, (N, D) -> fixed-size list column."""
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def committed_tickets(root: Path) -> list[int]:
    """Tickets of committed, not yet sealed episodes."""
    folder = root / "recording"
    if not folder.is_dir():
        return []
    return sorted(int(p.name.split("-")[1]) for p in folder.iterdir() if not p.name.endswith(".partial"))
