"""LeRobotDataset v3.0 folders as demonstrations: ours and anybody's.

Reads features, tasks, the episode table, video segments and embedded pictures with pyarrow and PyAV; the `lerobot`
package is not needed. Not read: depth, audio, features of rank two and more.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pyarrow as pa

from failsight.core.demonstrations import Demonstration
from failsight.core.errors import EpisodeDataError
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.types import Array
from failsight.episodes.parquet import read_frame, read_table
from failsight.episodes.seal import column_values


class LeRobotFolder:
    """A data set of version 3.0. Raises EpisodeDataError when it is not one, or has no images or actions."""

    def __init__(self, root: Path) -> None:
        self.root = root
        path = root / "meta" / "info.json"
        if not path.is_file():
            raise EpisodeDataError(f"{root} is not a LeRobot data set: it has no meta/info.json.")
        self.info: dict[str, Any] = json.loads(path.read_text())
        version = str(self.info.get("codebase_version"))
        if not version.startswith("v3."):
            raise EpisodeDataError(
                f"{root} has LeRobot version {version}; version 3.0 is read. Convert it with: "
                "python -m lerobot.scripts.convert_dataset_v21_to_v30"
            )
        features = self.info["features"]
        self.cameras = {
            name.removeprefix("observation.images."): feature
            for name, feature in features.items()
            if feature["dtype"] in ("video", "image") and name.startswith("observation.image")
        }
        if "action" not in features:
            raise EpisodeDataError(f"{root} has no feature 'action'; nothing can be learnt from it.")
        if not self.cameras:
            raise EpisodeDataError(
                f"{root} has no images; a run needs --video 1 when it is collected to be trained on."
            )
        self._episodes = pd.concat([read_frame(p) for p in sorted((root / "meta/episodes").rglob("[!.]*.parquet"))])
        tasks = read_frame(root / "meta/tasks.parquet")
        self._tasks = dict(zip(tasks["task_index"], tasks.index, strict=True))
        self._open: tuple[Path, pa.Table] | None = None

    def __len__(self) -> int:
        return len(self._episodes)

    def specs(self) -> tuple[ActionSpec, ObservationSpec]:
        """Names from the features, ranges from the statistics; units and kinds are not said in this format."""
        features = self.info["features"]
        stats = json.loads((self.root / "meta/stats.json").read_text())["action"]
        names = _names(features["action"], "action")
        low, high = (np.ravel(stats[key]) for key in ("min", "max"))
        dimensions = tuple(
            Dimension(name=n, kind="absolute", unit="", low=float(a), high=float(b))
            for n, a, b in zip(names, low, high, strict=True)
        )
        state = features.get("observation.state")
        cameras = []
        for name, feature in self.cameras.items():
            shape = feature["shape"]
            height, width = shape[:2] if shape[-1] == 3 else shape[1:]
            cameras.append((name, int(height), int(width)))
        spec = ActionSpec(dimensions=dimensions, frame="", rate_hz=float(self.info["fps"]), gripper_closed_sign=1)
        names_of_state = tuple(_names(state, "state")) if state else ()
        return spec, ObservationSpec(state=names_of_state, cameras=tuple(cameras))

    def episodes(self) -> Iterator[Demonstration]:
        """Every episode in order, one at a time; the scenario is its task."""
        for _, row in self._episodes.sort_values("episode_index").iterrows():
            yield self._episode(row)

    def _episode(self, row: Any) -> Demonstration:
        table = self._table(row)
        first = int(row["dataset_from_index"]) - int(table.column("index")[0].as_py())
        part = table.slice(first, int(row["length"]))
        name = f"episode {int(row['episode_index'])} of {self.root.name}"
        if part.num_rows != int(row["length"]):
            raise EpisodeDataError(
                f"{name} should have {int(row['length'])} frames and has {part.num_rows}; its file was cut short."
            )
        task = self._tasks[int(part.column("task_index")[0].as_py())]
        actions = _matrix(part, "action")
        states = _matrix(part, "observation.state") if "observation.state" in part.column_names else actions[:, :0]
        images = {camera: self._images(camera, row, part) for camera in self.cameras}
        return Demonstration(
            name=name, instruction=str(task), scenario=str(task), images=images, states=states, actions=actions
        )

    def _table(self, row: Any) -> pa.Table:
        path = self.root / self.info["data_path"].format(
            chunk_index=int(row["data/chunk_index"]), file_index=int(row["data/file_index"])
        )
        if self._open is None or self._open[0] != path:
            self._open = (path, read_table(path))
        return self._open[1]

    def _images(self, camera: str, row: Any, part: pa.Table) -> Array:
        key = next(k for k in (f"observation.images.{camera}", camera) if k in self.info["features"])
        if self.info["features"][key]["dtype"] == "image":
            return np.stack([_picture(value["bytes"]) for value in part.column(key).to_pylist()])
        path = self.root / self.info["video_path"].format(
            video_key=key,
            chunk_index=int(row[f"videos/{key}/chunk_index"]),
            file_index=int(row[f"videos/{key}/file_index"]),
        )
        return _segment(path, float(row[f"videos/{key}/from_timestamp"]), int(row["length"]), self.info["fps"])


def _names(feature: dict[str, Any], prefix: str) -> list[str]:
    size, names = int(np.prod(feature["shape"])), feature.get("names")
    if isinstance(names, dict):
        names = next(iter(names.values()))
    return [str(n) for n in names] if names and len(names) == size else [f"{prefix}_{i}" for i in range(size)]


def _matrix(table: pa.Table, name: str) -> Array:
    values = column_values(table, name)
    return np.asarray(values.reshape(len(values), -1), np.float32)


def _picture(data: bytes) -> Array:
    with av.open(io.BytesIO(data), "r") as container:
        return np.asarray(next(container.decode(video=0)).to_ndarray(format="rgb24"))


def _segment(path: Path, start_s: float, frames: int, fps: float) -> Array:
    """(frames, H, W, 3) of a shared video file from a time on. Raises EpisodeDataError when it ends too early."""
    found: list[Array] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            if start_s > 0:
                container.seek(int(start_s / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time is not None and frame.time < start_s - 0.5 / fps:
                    continue
                found.append(frame.to_ndarray(format="rgb24"))
                if len(found) == frames:
                    break
    except (OSError, av.error.FFmpegError) as error:
        raise EpisodeDataError(f"Cannot read {path} ({error}); the video is damaged or missing.") from error
    if len(found) < frames:
        raise EpisodeDataError(f"{path} ends after {len(found)} of {frames} frames; the video was cut short.")
    return np.stack(found)
