"""Demonstrations a policy is trained on: episodes of images, states and actions with an instruction.

They live in one folder of flat `.npy` files that are mapped, not read, so random windows of any data set cost the same
(`save_demonstrations`, `load_demonstrations`). Readers of other formats write this folder once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from failsight.core.contents import note_files, require_unchanged
from failsight.core.errors import EpisodeDataError, StorageError
from failsight.core.foreign import read_count, read_text, require_distinct
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.textfiles import read_json_object
from failsight.core.types import Array

_HEADER = "episodes.json"
OPTIONAL = ("chunks", "fails", "failing", "left", "resets", "places")
"""Arrays a data set may lack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """One episode of T frames.

    Raises EpisodeDataError on construction when lengths or shapes differ, it is empty, has no instruction, or its
    states or actions are not finite in float32 (the place is named; training data has no "missing").
    """

    name: str
    instruction: str
    scenario: str
    """What is held out as a whole when generalisation is asked for: a task, a layout, a place."""
    images: Mapping[str, Array]
    """Camera -> (T, H, W, 3) uint8."""
    states: Array
    """(T, S) float32; S may be 0."""
    actions: Array
    """(T, A) float32 in the units of the action spec."""
    chunks: Array | None = None
    """(T, H, A) float32: what an expert would do from here, where that differs from the recorded actions."""
    fails: Array | None = None
    """(T,) float32, the same at every frame: 1 the episode fails, 0 it succeeds, NaN nobody knows."""
    failing: Array | None = None
    """(T,) float32 failure tokens: 1 lost or about to be, 0 not, NaN unknown."""
    left: Array | None = None
    """(T,) float32 steps until the onset; inf on a success, NaN unknown."""
    resets: Array | None = None
    """(T,) float32: 1 from the frame on where the robot was given a new instruction."""
    places: Array | None = None
    """(T, P) float32 auxiliary targets: offsets to things, then flags of 0 or 1."""
    changes: tuple[tuple[int, str], ...] = ()
    """Later instructions of the same episode, in order: the frame each holds from, and its text."""

    def __post_init__(self) -> None:
        frames = len(self.actions)
        if frames == 0:
            raise EpisodeDataError(f"Episode {self.name} has no frames; delete its file.")
        if not all(text.strip() for text in (self.instruction, *(text for _, text in self.changes))):
            raise EpisodeDataError(
                f"Episode {self.name} has no instruction; add one, or name the task in its file name."
            )
        for camera, pixels in self.images.items():
            if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
                raise EpisodeDataError(
                    f"Episode {self.name}: camera {camera} has shape {pixels.shape} and type {pixels.dtype}; "
                    "images must be (T, height, width, 3) uint8."
                )
        lengths = {camera: len(pixels) for camera, pixels in self.images.items()}
        lengths |= {"states": len(self.states), "actions": frames}
        lengths |= {name: len(getattr(self, name)) for name in OPTIONAL if getattr(self, name) is not None}
        if len(set(lengths.values())) > 1:
            text = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise EpisodeDataError(f"Episode {self.name}: lengths differ ({text}); the file was cut short.")
        starts = [0, *(frame for frame, _ in self.changes), frames]
        if sorted(set(starts)) != starts:
            raise EpisodeDataError(f"Episode {self.name}: instructions change at frames {starts[1:-1]} of {frames}.")
        for name, rank in _RANKS.items():
            self._require_numbers(name, rank)

    def _require_numbers(self, name: str, rank: int) -> None:
        values = getattr(self, name)
        if values is None:
            return
        if values.ndim != rank or values.dtype.kind not in "fiu":
            raise EpisodeDataError(
                f"Episode {self.name}: {name} are {values.dtype} of shape {values.shape}; numbers in {rank} dimensions "
                "are wanted."
            )
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(values.astype(np.float32))
        if name in ("states", "actions", "chunks", "places") and bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            raise EpisodeDataError(
                f"Episode {self.name}, frame {place[0]}: {name} entry {place[1:]} is {values[place]}, not finite; correct "
                "it or leave the episode out."
            )


_RANKS = {"states": 2, "actions": 2, "chunks": 3, "fails": 1, "failing": 1, "left": 1, "resets": 1, "places": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRow:
    """Where an episode lies in the flat files, and what it is."""

    name: str
    instruction: str
    scenario: str
    first: int
    length: int
    changes: tuple[tuple[int, str], ...] = ()
    """As in `Demonstration`."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Every instruction of the episode, in order."""
        return (self.instruction, *(text for _, text in self.changes))


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstrationSet:
    """A folder of demonstrations, N frames in all."""

    folder: Path
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    episodes: tuple[EpisodeRow, ...]
    images: Mapping[str, Array]
    """Camera -> (N, H, W, 3) uint8, mapped."""
    states: Array
    actions: Array
    chunks: Array | None
    fails: Array | None
    failing: Array | None
    left: Array | None
    resets: Array | None
    places: Array | None
    steps_per_frame: int
    """Control steps between two stored frames."""
    source: str
    fingerprint: str
    """16 hex digits over everything a policy learns from: arrays (pictures and labels included), texts, specs."""
    phrasings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Instruction -> other wordings of the same task, for language augmentation."""

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Every scenario, sorted."""
        return tuple(sorted({row.scenario for row in self.episodes}))

    @property
    def instructions(self) -> tuple[str, ...]:
        """Every instruction, sorted."""
        return tuple(sorted({text for row in self.episodes for text in row.texts}))


def check_actions(name: str, actions: Array, spec: ActionSpec) -> None:
    """Raises EpisodeDataError when actions (T, A) have another width or lie outside their declared range."""
    if actions.shape[1] != len(spec.dimensions):
        raise EpisodeDataError(
            f"Episode {name} has {actions.shape[1]} action dimensions and the data set {len(spec.dimensions)} "
            f"({', '.join(spec.names)})."
        )
    slack = 1e-4 * (spec.high - spec.low)
    outside = (actions < spec.low - slack) | (actions > spec.high + slack)
    if outside.any():
        step, at = (int(i) for i in np.argwhere(outside)[0])
        dimension = spec.dimensions[at]
        raise EpisodeDataError(
            f"Episode {name}, step {step}: {dimension.name} is {actions[step, at]:.4g}, outside its declared range "
            f"[{dimension.low:g}, {dimension.high:g}]; correct the data or the action spec."
        )


def save_demonstrations(
    folder: Path,
    demonstrations: Iterable[Demonstration],
    action_spec: ActionSpec,
    observation_spec: ObservationSpec,
    *,
    source: str,
    steps_per_frame: int = 1,
    phrasings: Mapping[str, Sequence[str]] | None = None,
) -> DemonstrationSet:
    """Write the folder in one pass with bounded memory; it appears whole or not at all.

    An older data set there is replaced. Raises StorageError for a folder that holds something else.
    """
    if folder.exists() and not (folder / _HEADER).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} is there and is no data set of demonstrations; choose another folder.")
    partial = _beside(folder)
    try:
        partial.mkdir(parents=True)
        rows, parts = [], _Parts(partial, action_spec, observation_spec, steps_per_frame)
        for item in demonstrations:
            check_actions(item.name, item.actions, action_spec)
            _check_sizes(item, observation_spec)
            rows.append(_row(item, parts.frames))
            parts.add(item)
        if not rows:
            raise EpisodeDataError(f"{source} holds no episodes.")
        require_distinct((row.name for row in rows), source, "the episode")
        parts.finish()
        header = {
            "action_spec": action_spec.as_dict(),
            "observation_spec": observation_spec.as_dict(),
            "steps_per_frame": steps_per_frame,
            "source": source,
            "phrasings": {key: list(value) for key, value in (phrasings or {}).items()},
            "fingerprint": parts.fingerprint,
            "files": note_files(partial.glob("*.npy")),
            "episodes": [asdict(row) for row in rows],
        }
        (partial / _HEADER).write_text(json.dumps(header))
        _replace(folder, partial)
    except OSError as error:
        raise StorageError(
            f"Cannot write {folder}: {error.strerror}. Free disk space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load_demonstrations(folder)


def _beside(folder: Path) -> Path:
    """A name in the same place that nobody else uses."""
    return folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:12]}")


def _replace(folder: Path, partial: Path) -> None:
    old = _beside(folder)
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)


def load_demonstrations(folder: Path) -> DemonstrationSet:
    """Mapped arrays of a folder. Raises EpisodeDataError when it is not one, incomplete, or its parts disagree."""
    path = folder / _HEADER
    if not path.is_file():
        raise EpisodeDataError(f"{folder} holds no demonstrations: it has no {_HEADER}.")
    header = read_json_object(path)
    try:
        actions, observations = (
            ActionSpec.from_dict(header["action_spec"]),
            ObservationSpec.from_dict(header["observation_spec"]),
        )
        episodes = tuple(_read_row(row, f"{path}, episode {i}") for i, row in enumerate(header["episodes"]))
        steps = read_count(header["steps_per_frame"], f"{path}, steps_per_frame", 1)
        source, fingerprint = str(header["source"]), str(header["fingerprint"])
        phrasings = {str(key): [str(text) for text in texts] for key, texts in header["phrasings"].items()}
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise EpisodeDataError(f"{path} is not what this version writes ({error}); make the folder again.") from error
    require_unchanged(folder, header.get("files", {}))
    sizes: dict[str, tuple[int, ...]] = {
        f"images.{name}": (height, width, 3) for name, height, width in observations.cameras
    }
    sizes |= {"states": (len(observations.state),), "actions": (len(actions.dimensions),)}
    frames = max((row.first + row.length for row in episodes), default=0)
    arrays = {name: _map(_file(folder, name), frames, size) for name, size in sizes.items()}
    optional = {n: _map(_file(folder, n), frames, None) for n in OPTIONAL if _file(folder, n).is_file()}
    return DemonstrationSet(
        folder=folder,
        action_spec=actions,
        observation_spec=observations,
        episodes=episodes,
        images={name: arrays[f"images.{name}"] for name, _, _ in observations.cameras},
        states=arrays["states"],
        actions=arrays["actions"],
        **{name: optional.get(name) for name in OPTIONAL},
        steps_per_frame=steps,
        source=source,
        fingerprint=fingerprint,
        phrasings=phrasings,
    )


def _read_row(row: dict[str, Any], where: str) -> EpisodeRow:
    changes = tuple((read_count(t, where), read_text(text, where)) for t, text in row.get("changes", ()))
    return EpisodeRow(
        name=read_text(row["name"], where),
        instruction=read_text(row["instruction"], where),
        scenario=read_text(row["scenario"], where),
        first=read_count(row["first"], where),
        length=read_count(row["length"], where, 1),
        changes=changes,
    )


def _map(path: Path, frames: int, size: tuple[int, ...] | None) -> Array:
    """A mapped array of `frames` rows of a size (None: any)."""
    try:
        array: Array = np.load(path, mmap_mode=None if size and 0 in size else "r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EpisodeDataError(f"{path} is missing or damaged ({error}); make the folder again.") from error
    kind = np.uint8 if path.name.startswith("images.") else np.float32
    if array.dtype != kind or len(array) != frames or (size is not None and array.shape[1:] != size):
        raise EpisodeDataError(
            f"{path} holds {array.dtype} of shape {array.shape} and {_HEADER} says {frames} frames"
            f"{'' if size is None else f' of {size}'} in {np.dtype(kind)}; make the folder again."
        )
    return array


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _row(item: Demonstration, first: int) -> EpisodeRow:
    row = partial(EpisodeRow, name=item.name, instruction=item.instruction, scenario=item.scenario)
    return row(first=first, length=len(item.actions), changes=item.changes)


def _check_sizes(item: Demonstration, spec: ObservationSpec) -> None:
    if item.states.shape[1] != len(spec.state):
        raise EpisodeDataError(
            f"Episode {item.name} has {item.states.shape[1]} state entries and the data set {len(spec.state)}."
        )
    for name, height, width in spec.cameras:
        found = item.images[name].shape[1:3] if name in item.images else None
        if found != (height, width):
            raise EpisodeDataError(
                f"Episode {item.name}: camera {name} should be {height} x {width} pixels and is "
                f"{'missing' if found is None else f'{found[0]} x {found[1]}'}; all episodes of a data set share one size."
            )


def _resets(item: Demonstration) -> Array:
    """Where the robot was given a new instruction: as said, else from the first change of text on."""
    if item.resets is not None:
        return item.resets
    first = item.changes[0][0] if item.changes else len(item.actions)
    return (np.arange(len(item.actions)) >= first).astype(np.float32)


class _Parts:
    """Raw appends per array, turned into `.npy` by a header at the end."""

    def __init__(self, folder: Path, actions: ActionSpec, observations: ObservationSpec, steps: int) -> None:
        self._folder, self.frames, self._resets = folder, 0, False
        self._shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self._digest = hashlib.blake2b(digest_size=8)
        self._digest.update(json.dumps([actions.as_dict(), observations.as_dict(), steps], sort_keys=True).encode())

    def add(self, item: Demonstration) -> None:
        arrays = {f"images.{camera}": np.asarray(pixels) for camera, pixels in item.images.items()}
        arrays |= {"states": np.asarray(item.states, np.float32), "actions": np.asarray(item.actions, np.float32)}
        for name in OPTIONAL:
            value = _resets(item) if name == "resets" else getattr(item, name)
            if value is not None:
                arrays[name] = np.asarray(value, np.float32)
        self._resets |= bool(arrays["resets"].any())
        if self._shapes and set(arrays) != set(self._shapes):
            different = ", ".join(sorted(set(arrays) ^ set(self._shapes)))
            raise EpisodeDataError(f"Episode {item.name} and the ones before it do not both have: {different}.")
        self._digest.update(json.dumps([item.instruction, item.changes, item.scenario]).encode())
        for name, array in sorted(arrays.items()):
            shape = self._shapes.setdefault(name, (array.shape[1:], array.dtype))[0]
            if array.shape[1:] != shape:
                raise EpisodeDataError(f"Episode {item.name}: {name} have shape {array.shape[1:]}, the others {shape}.")
            content = np.ascontiguousarray(array)
            self._digest.update(f"{name}{content.shape}".encode())
            self._digest.update(content.data if content.size else b"")
            with open(self._folder / f"{name}.raw", "ab") as file:
                file.write(content.data if content.size else b"")
        self.frames += len(item.actions)

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()

    def finish(self) -> None:
        for name, (shape, dtype) in self._shapes.items():
            raw = self._folder / f"{name}.raw"
            if name == "resets" and not self._resets:
                raw.unlink()
                continue
            whole = (self.frames, *shape)
            target = open_memmap(_file(self._folder, name), "w+", dtype, whole)
            if target.size:
                target[:] = np.memmap(raw, dtype, "r", shape=whole)
                target.flush()
            raw.unlink()
