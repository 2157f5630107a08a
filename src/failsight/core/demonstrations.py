"""Demonstrations a policy is trained on: episodes of images, states and actions with an instruction.

They live in one folder of flat `.npy` files that are mapped, not read, so random windows of any data set cost the same
(`save_demonstrations`, `load_demonstrations`). Readers of other formats write this folder once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from failsight.core.errors import EpisodeDataError, StorageError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import Array

OPTIONAL = ("chunks", "fails", "failing", "left", "resets")
"""Arrays a data set may lack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """One episode of T frames.

    Raises EpisodeDataError on construction when lengths differ, it is empty, has no instruction, or is not finite.
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

    def __post_init__(self) -> None:
        frames = len(self.actions)
        if frames == 0:
            raise EpisodeDataError(f"Episode {self.name} has no frames; delete its file.")
        if not self.instruction.strip():
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
        if not (np.isfinite(self.states).all() and np.isfinite(self.actions).all()):
            raise EpisodeDataError(f"Episode {self.name} has states or actions that are not finite.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRow:
    """Where an episode lies in the flat files, and what it is."""

    name: str
    instruction: str
    scenario: str
    first: int
    length: int


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
    steps_per_frame: int
    """Control steps between two stored frames."""
    source: str
    fingerprint: str
    """16 hex digits over states, actions and instructions."""
    phrasings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Instruction -> other wordings of the same task, for language augmentation."""

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Every scenario, sorted."""
        return tuple(sorted({row.scenario for row in self.episodes}))

    @property
    def instructions(self) -> tuple[str, ...]:
        """Every instruction, sorted."""
        return tuple(sorted({row.instruction for row in self.episodes}))


def check_actions(name: str, actions: Array, spec: ActionSpec) -> None:
    """Raises EpisodeDataError when an action lies outside its declared range, naming the dimension."""
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
    """Write the folder in one pass with bounded memory; it appears whole or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        rows, parts = [], _Parts(partial)
        for item in demonstrations:
            check_actions(item.name, item.actions, action_spec)
            _check_sizes(item, observation_spec)
            rows.append(_row(item, parts.frames))
            parts.add(item)
        if not rows:
            raise EpisodeDataError(f"{source} holds no episodes.")
        parts.finish()
        header = {
            "action_spec": action_spec.as_dict(),
            "observation_spec": observation_spec.as_dict(),
            "steps_per_frame": steps_per_frame,
            "source": source,
            "phrasings": {key: list(value) for key, value in (phrasings or {}).items()},
            "fingerprint": parts.fingerprint,
            "episodes": [asdict(row) for row in rows],
        }
        (partial / "episodes.json").write_text(json.dumps(header))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    except OSError as error:
        raise StorageError(
            f"Cannot write {folder}: {error.strerror}. Free disk space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load_demonstrations(folder)


def load_demonstrations(folder: Path) -> DemonstrationSet:
    """Mapped arrays of a folder. Raises EpisodeDataError when it is not one, or incomplete."""
    path = folder / "episodes.json"
    if not path.is_file():
        raise EpisodeDataError(f"{folder} holds no demonstrations: it has no episodes.json.")
    header: dict[str, Any] = json.loads(path.read_text())
    spec = ObservationSpec.from_dict(header["observation_spec"])
    cameras = [name for name, _, _ in spec.cameras]
    missing = [n for n in ("states", "actions", *(f"images.{c}" for c in cameras)) if not _file(folder, n).is_file()]
    if missing:
        raise EpisodeDataError(f"{folder} lacks {', '.join(missing)}; make it again.")

    def optional(name: str) -> Array | None:
        return np.load(_file(folder, name), mmap_mode="r") if _file(folder, name).is_file() else None

    return DemonstrationSet(
        folder=folder,
        action_spec=ActionSpec.from_dict(header["action_spec"]),
        observation_spec=spec,
        episodes=tuple(EpisodeRow(**row) for row in header["episodes"]),
        images={camera: np.load(_file(folder, f"images.{camera}"), mmap_mode="r") for camera in cameras},
        states=np.load(_file(folder, "states"), mmap_mode="r"),
        actions=np.load(_file(folder, "actions"), mmap_mode="r"),
        **{name: optional(name) for name in OPTIONAL},
        steps_per_frame=header["steps_per_frame"],
        source=header["source"],
        fingerprint=header["fingerprint"],
        phrasings=header["phrasings"],
    )


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _row(item: Demonstration, first: int) -> EpisodeRow:
    return EpisodeRow(
        name=item.name, instruction=item.instruction, scenario=item.scenario, first=first, length=len(item.actions)
    )


def _check_sizes(item: Demonstration, spec: ObservationSpec) -> None:
    for name, height, width in spec.cameras:
        found = item.images[name].shape[1:3] if name in item.images else None
        if found != (height, width):
            raise EpisodeDataError(
                f"Episode {item.name}: camera {name} should be {height} x {width} pixels and is "
                f"{'missing' if found is None else f'{found[0]} x {found[1]}'}; all episodes of a data set share one size."
            )


class _Parts:
    """Raw appends per array, turned into `.npy` by a header at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.frames = folder, 0
        self._shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self._digest = hashlib.blake2b(digest_size=8)

    def add(self, item: Demonstration) -> None:
        arrays = {f"images.{camera}": np.asarray(pixels) for camera, pixels in item.images.items()}
        arrays |= {"states": np.asarray(item.states, np.float32), "actions": np.asarray(item.actions, np.float32)}
        for name in OPTIONAL:
            value = getattr(item, name)
            if value is not None:
                arrays[name] = np.asarray(value, np.float32)
        if self._shapes and set(arrays) != set(self._shapes):
            different = ", ".join(sorted(set(arrays) ^ set(self._shapes)))
            raise EpisodeDataError(f"Episode {item.name} and the ones before it do not both have: {different}.")
        for name, array in arrays.items():
            self._shapes.setdefault(name, (array.shape[1:], array.dtype))
            with open(self._folder / f"{name}.raw", "ab") as file:
                file.write(np.ascontiguousarray(array).tobytes())
        self._digest.update(item.instruction.encode())
        for name in ("states", "actions"):
            self._digest.update(np.ascontiguousarray(arrays[name]).tobytes())
        self.frames += len(item.actions)

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()

    def finish(self) -> None:
        for name, (shape, dtype) in self._shapes.items():
            raw = self._folder / f"{name}.raw"
            whole = (self.frames, *shape)
            target = open_memmap(_file(self._folder, name), "w+", dtype, whole)
            if target.size:
                target[:] = np.memmap(raw, dtype, "r", shape=whole)
                target.flush()
            raw.unlink()
