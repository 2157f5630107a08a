"""LeRobotDataset v3.0 folders as demonstrations: ours and anybody's.

Rows are believed (`lerobot_rows`): boundaries, task and time of every frame come from their own columns; the episode
table is only asked where a video segment begins, and must not contradict them. Ranges are those of the rows, so
`meta/stats.json` is not needed. Not read: depth, audio, features of rank two and more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_count, read_number, read_text, require_distinct
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.textfiles import read_json_object
from failsight.core.types import Array
from failsight.episodes.demonstrations import Demonstration
from failsight.episodes.formats.format import DemonstrationFormat, Demonstrations, Format, ReadOptions
from failsight.episodes.formats.lerobot_rows import EpisodeRows, Rows, read_columns, read_schema, vectors
from failsight.storage.pictures import Video, embedded, inside, require_room

MOST_FPS, MOST_ENTRIES = 10_000.0, 4096


class _Vector(NamedTuple):
    """A numeric feature."""

    column: str
    names: tuple[str, ...]


class _Camera(NamedTuple):
    """A feature of pictures."""

    key: str
    size: tuple[int, int]
    video: bool


class LeRobotFolder:
    """A data set of version 3.0. Raises EpisodeDataError when it is not one, or has no images or actions."""

    def __init__(self, root: Path) -> None:
        self.root = root
        path = root / "meta" / "info.json"
        if not path.is_file():
            raise EpisodeDataError(f"{root} is not a LeRobot data set: it has no meta/info.json.")
        self.info: dict[str, Any] = read_json_object(path)
        _require_version(root, self.info)
        self.fps = read_number(self.info.get("fps"), f"{path}, fps", 1e-3, MOST_FPS)
        features = _features(self.info, path)
        self._action = _vector(features, "action", path)
        self._state = _vector(features, "observation.state", path) if "observation.state" in features else None
        self.cameras = _cameras(features, path)
        if not self.cameras:
            raise EpisodeDataError(
                f"{root} has no images; a run needs --video 1 when it is collected to be trained on."
            )
        self._rows = Rows(root, self.fps)
        self._table = _EpisodeTable(root, [c.key for c in self.cameras.values() if c.video])
        self._tasks = _tasks(root)
        self._videos: dict[Path, Video] = {}
        self._require_agreement()

    def __len__(self) -> int:
        return len(self._rows.episodes)

    def specs(self) -> tuple[ActionSpec, ObservationSpec]:
        """Names from the features, ranges from the rows; units and kinds are not said in this format."""
        low, high = self._rows.extent(self._action.column, len(self._action.names))
        dimensions = tuple(
            Dimension(name=n, kind="absolute", unit="", low=float(a), high=float(b))
            for n, a, b in zip(self._action.names, low, high, strict=True)
        )
        spec = ActionSpec(dimensions=dimensions, frame="", rate_hz=self.fps, gripper_closed_sign=1)
        cameras = tuple((name, *camera.size) for name, camera in self.cameras.items())
        return spec, ObservationSpec(state=self.state_names, cameras=cameras)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the action entries in order."""
        return self._action.names

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state entries in order; none when there is no state."""
        return self._state.names if self._state else ()

    def episodes(self) -> Iterator[Demonstration]:
        """Every episode in order, one at a time; the scenario is its task."""
        for episode in self._rows.episodes.tolist():
            yield self.episode(episode)

    def _require_agreement(self) -> None:
        """Rows and table speak of the same episodes with the same lengths, and no picture belongs to two of them."""
        have = self._rows.episodes.tolist()
        for episode, length in self._table.lengths.items():
            found = self._rows.length(episode)
            if found != length:
                raise EpisodeDataError(
                    f"{self.root}: the episode table gives episode {episode} {length} frames and data/ holds {found}; "
                    "one of them was cut short."
                )
        missing = [episode for episode in have if episode not in self._table.lengths]
        if missing:
            raise EpisodeDataError(f"{self.root}: data/ holds episode {missing[0]} and meta/episodes does not.")
        if not have:
            raise EpisodeDataError(f"{self.root} holds no episodes.")
        self._table.require_apart(self.fps)

    def episode(self, episode: int) -> Demonstration:
        """One episode by its number. Raises EpisodeDataError when the folder does not have it, or it is damaged."""
        if not self._rows.length(episode):
            raise EpisodeDataError(f"{self.root} has no episode {episode}; it has {len(self)}.")
        vectors_of = [self._action, *([self._state] if self._state else [])]
        pictures = [camera.key for camera in self.cameras.values() if not camera.video]
        rows = self._rows.read(episode, [*(v.column for v in vectors_of), *pictures])
        actions = vectors(rows.table, "action", len(self._action.names), rows.where)
        states = actions[:, :0]
        if self._state:
            states = vectors(rows.table, self._state.column, len(self._state.names), rows.where)
        texts = self._texts(rows)
        changes = tuple((t, texts[t]) for t in range(1, len(texts)) if texts[t] != texts[t - 1])
        return Demonstration(
            name=f"episode {episode} of {self.root.name}",
            instruction=texts[0],
            scenario=" / ".join(dict.fromkeys(texts)),
            changes=changes,
            images={name: self._images(camera, episode, rows) for name, camera in self.cameras.items()},
            states=states,
            actions=actions,
        )

    def _texts(self, rows: EpisodeRows) -> list[str]:
        """The instruction of every row."""
        unknown = sorted(set(rows.tasks.tolist()) - self._tasks.keys())
        if unknown:
            raise EpisodeDataError(f"{rows.where}: task {unknown[0]} is not in meta/tasks.parquet.")
        table = {
            task: read_text(self._tasks[task], f"{self.root / 'meta/tasks.parquet'}, task {task}")
            for task in set(rows.tasks.tolist())
        }
        return [table[task] for task in rows.tasks.tolist()]

    def _images(self, camera: _Camera, episode: int, rows: EpisodeRows) -> Array:
        count = len(rows.times)
        if camera.video:
            path, start_s = self._table.segment(camera.key, episode, self.info.get("video_path"))
            if path not in self._videos:
                self._videos = {p: v for p, v in self._videos.items() if p.parents[1] != path.parents[1]} | {
                    path: Video(path)
                }
            return self._videos[path].at(start_s + rows.times, 0.5 / self.fps, camera.size, rows.where)
        require_room(count, camera.size, rows.where)
        images = np.empty((count, *camera.size, 3), np.uint8)
        column = rows.table.column(camera.key)
        for t in range(count):
            where = f"{rows.where}, {camera.key}, frame {t}"
            images[t] = embedded(_struct(column[t].as_py(), where), self.root, camera.size, where)
        return images


def _require_version(root: Path, info: Mapping[str, Any]) -> None:
    version = str(info.get("codebase_version"))
    if not version.startswith("v3."):
        raise EpisodeDataError(
            f"{root} has LeRobot version {version}; version 3.0 is read. Convert it with: "
            "python -m lerobot.scripts.convert_dataset_v21_to_v30"
        )


def _features(info: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    found = info.get("features")
    if not isinstance(found, dict) or not all(isinstance(value, dict) for value in found.values()):
        raise EpisodeDataError(f"{path}: features should be a map of name to type and shape.")
    return found


def _shape(feature: Mapping[str, Any], where: str) -> list[int]:
    shape = feature.get("shape")
    if not isinstance(shape, list):
        raise EpisodeDataError(f"{where} says no shape.")
    return [read_count(n, f"{where}, shape", 0, 2**31) for n in shape]


def _vector(features: Mapping[str, dict[str, Any]], name: str, path: Path) -> _Vector:
    if name not in features:
        raise EpisodeDataError(f"{path.parent.parent} has no feature {name!r}; nothing can be learnt from it.")
    shape, dtype = _shape(features[name], f"{path}: {name}"), str(features[name].get("dtype"))
    if len(shape) != 1 or shape[0] > MOST_ENTRIES or not dtype.startswith(("float", "int", "uint")):
        raise EpisodeDataError(f"{path}: {name} is {dtype} of shape {shape}; a vector of numbers is wanted.")
    prefix = name.rsplit(".", 1)[-1]
    names = _names(features[name].get("names"))
    if len(names) != shape[0]:  # absent, or one word for the whole vector
        names = [f"{prefix}_{i}" for i in range(shape[0])]
    require_distinct(names, f"{path}, {name}", "the name")
    return _Vector(name, tuple(names))


def _names(found: Any) -> list[str]:
    """Names in order, from a list, nested lists, a map of lists, or a map of name to position.

    >>> _names({"grip": 1, "arm": 0}), _names({"left": ["a"], "right": ["b"]})
    (['arm', 'grip'], ['a', 'b'])
    """
    if isinstance(found, dict) and found and all(type(value) is int for value in found.values()):
        by_place = sorted(found, key=lambda name: found[name])
        return [str(name) for name in by_place] if sorted(found.values()) == list(range(len(found))) else []
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return [name for part in found for name in (_names(part) if isinstance(part, list | dict) else [str(part)])]
    return []


def _cameras(features: Mapping[str, dict[str, Any]], path: Path) -> dict[str, _Camera]:
    cameras = {}
    for key, feature in features.items():
        if not key.startswith("observation.image"):
            continue
        if feature.get("dtype") not in ("video", "image"):
            raise EpisodeDataError(
                f"{path}: {key} holds pictures as {feature.get('dtype')!r}; dtype image or video is read. Store them as one."
            )
        info = feature.get("info") or feature.get("video_info") or {}
        if isinstance(info, dict) and (info.get("is_depth_map") or info.get("video.is_depth_map")):
            continue
        name = key.removeprefix("observation.images.")
        cameras[name] = _Camera(key, _size(feature, f"{path}, {key}"), feature["dtype"] == "video")
    return cameras


def _size(feature: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Height and width, whichever end the colours stand at."""
    shape = _shape(feature, where)
    if len(shape) != 3 or 3 not in (shape[0], shape[2]) or 0 in shape:
        raise EpisodeDataError(
            f"{where}: pictures of shape {shape} are not read; (height, width, 3) or (3, height, width) is."
        )
    names = [str(name).lower() for name in _names(feature.get("names"))]
    first = names[:1] in (["channels"], ["channel"]) if len(names) == 3 else shape[2] != 3
    height, width = shape[1:] if first and shape[0] == 3 else shape[:2]
    return height, width


def _struct(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, bytes):
        return {"bytes": value}
    if value is None or isinstance(value, dict):
        return value or {}
    raise EpisodeDataError(f"{where}: expected a picture file, found {type(value).__name__}.")


def _tasks(root: Path) -> dict[int, Any]:
    """Task index -> instruction, as it stands in the table."""
    path = root / "meta/tasks.parquet"
    names = read_schema(path).names
    text = next((name for name in ("task", "__index_level_0__", "index") if name in names), None)
    if text is None or "task_index" not in names:
        raise EpisodeDataError(f"{path} should have the columns task and task_index; it has {', '.join(names)}.")
    table = read_columns(path, ["task_index", text])
    indices = vectors(table, "task_index", 1, str(path), np.float64)[:, 0].astype(int).tolist()
    require_distinct(indices, str(path), "task_index")
    return dict(zip(indices, table.column(text).to_pylist(), strict=True))


class _EpisodeTable:
    """Lengths and video segments of `meta/episodes`."""

    def __init__(self, root: Path, cameras: list[str]) -> None:
        self._root = root
        self._where = f"{root / 'meta/episodes'}"
        self._wanted = [f"videos/{c}/{field}" for c in cameras for field in _SEGMENT]
        files = [p for p in sorted((root / "meta/episodes").rglob("*.parquet")) if not p.name.startswith(".")]
        if not files:
            raise EpisodeDataError(f"{root} has no files in meta/episodes.")
        frame = pd.concat([self._read(path) for path in files], ignore_index=True)
        indices = [read_count(v, f"{self._where}, episode_index") for v in frame["episode_index"].tolist()]
        require_distinct(indices, self._where, "episode")
        frame.index = pd.Index(indices)
        self._frame = frame
        self.lengths = {
            episode: read_count(length, f"{self._where}, length of episode {episode}")
            for episode, length in zip(indices, frame["length"].tolist(), strict=True)
        }

    def _read(self, path: Path) -> pd.DataFrame:
        columns = ["episode_index", "length", *self._wanted]
        table = read_columns(path, columns)
        return pd.DataFrame({name: table.column(name).to_pylist() for name in columns}, dtype=object)

    def segment(self, camera: str, episode: int, template: Any) -> tuple[Path, float]:
        """The file of an episode's video and the second it begins at."""
        chunk, file, start_s = self._place(camera, episode)
        where = f"{self._root / 'meta/info.json'}, video_path"
        return inside(self._root, template, where, video_key=camera, chunk_index=chunk, file_index=file), start_s

    def _place(self, camera: str, episode: int) -> tuple[int, int, float]:
        where = f"{self._where}, {camera} of episode {episode}"
        row = self._frame.loc[episode]
        chunk, file = (read_count(row[f"videos/{camera}/{name}"], f"{where}, {name}") for name in _SEGMENT[:2])
        return chunk, file, read_number(row[f"videos/{camera}/from_timestamp"], f"{where}, from_timestamp", low=0)

    def require_apart(self, fps: float) -> None:
        """No two episodes may claim the same stretch of a video."""
        for camera in dict.fromkeys(name.split("/")[1] for name in self._wanted):
            places = sorted((*self._place(camera, e), e) for e, length in self.lengths.items() if length)
            for (*file, start, episode), (*other, following, second) in pairwise(places):
                if file == other and following < start + (self.lengths[episode] - 0.5) / fps:
                    raise EpisodeDataError(
                        f"{self._where}: {camera} of episode {second} begins at {following:g} s, inside episode {episode} "
                        f"({start:g} s, {self.lengths[episode]} frames); the table points to the wrong pictures."
                    )


_SEGMENT = ("chunk_index", "file_index", "from_timestamp")


def _sniff(path: Path) -> str:
    ours = (path / "meta/failsight/run.json").is_file()
    return "a LeRobot data set" if (path / "meta/info.json").is_file() and not ours else ""


def _read(path: Path, options: ReadOptions) -> Demonstrations:
    options.refuse_fields("lerobot")
    folder = LeRobotFolder(path)
    return folder.episodes(), *folder.specs()


FORMAT: DemonstrationFormat = Format(name="lerobot", sniff=_sniff, read=_read)
