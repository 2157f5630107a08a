"""Mobile-VLA recordings: one HDF5 file per episode, read and written.

Layout: `images` (N, H, W, 3) uint8; `actions` (N, 3) float = linear_x, linear_y (m/s), angular_z (rad/s);
`action_event_types` (N,); optional `language_instruction` (1,) bytes; attributes `episode_name`, `num_frames`. The
scenario stands in the file name (`episode_00012_2box_hori_left.h5`). Ours also holds `states` (N, S) and the names of
its entries; readers of the original ignore them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from failsight.core.demonstrations import Demonstration
from failsight.core.errors import EpisodeDataError, StorageError
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.types import Array

CAMERA = "front"
RATE_HZ = 2.5
ACTIONS = ActionSpec(
    dimensions=(
        Dimension(name="linear_x", kind="velocity", unit="m/s", low=-1.15, high=1.15, hold=0.0),
        Dimension(name="linear_y", kind="velocity", unit="m/s", low=-1.15, high=1.15, hold=0.0),
        Dimension(name="angular_z", kind="velocity", unit="rad/s", low=-1.5, high=1.5, hold=0.0),
    ),
    frame="base",
    rate_hz=RATE_HZ,
    gripper_closed_sign=1,
)
_SCENARIO = re.compile(r"\d+box_(?:vert|hori)_(?:left|right)(?:_\w+)?")


def files_of(folder: Path) -> list[Path]:
    """The `.h5` and `.hdf5` files of a folder, sorted."""
    return sorted(path for path in folder.glob("*") if path.suffix in (".h5", ".hdf5"))


def write_episode(path: Path, item: Demonstration, state_names: tuple[str, ...] = ()) -> None:
    """Write one file; it appears whole or not at all. Raises StorageError when the disk refuses."""
    partial = path.with_name(path.name + ".partial")
    actions = np.zeros((len(item.actions), 3), np.float32)
    actions[:, : item.actions.shape[1]] = item.actions
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(partial, "w") as file:
            file.create_dataset("images", data=item.images[CAMERA], compression="gzip", compression_opts=1)
            file.create_dataset("actions", data=actions)
            file.create_dataset(
                "action_event_types", data=[b"episode_start"] + [b"keyboard_action"] * (len(actions) - 1)
            )
            file.create_dataset("language_instruction", data=[item.instruction.encode()])
            if state_names:
                file.create_dataset("states", data=item.states).attrs["names"] = list(state_names)
            file.attrs["episode_name"], file.attrs["num_frames"] = item.name, len(actions)
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}. Free disk space or choose another folder."
        ) from error


def read_episode(path: Path) -> Demonstration:
    """One file. Raises EpisodeDataError: damaged, incomplete, without instruction, empty, of a wrong shape."""
    try:
        with h5py.File(path, "r") as file:
            missing = [name for name in ("images", "actions") if name not in file]
            if missing:
                raise EpisodeDataError(f"{path} lacks {' and '.join(missing)}; it is not a Mobile-VLA recording.")
            images, actions = np.asarray(file["images"]), np.asarray(file["actions"], np.float32)
            states = (
                np.asarray(file["states"], np.float32) if "states" in file else np.zeros((len(actions), 0), np.float32)
            )
            told = file["language_instruction"][0] if "language_instruction" in file else b""
    except (OSError, KeyError, RuntimeError) as error:
        raise EpisodeDataError(
            f"{path} cannot be read ({str(error).split(chr(10))[0]}); it is damaged or half-written. Delete it or record it again."
        ) from error
    if actions.ndim != 2 or actions.shape[1] not in (2, 3):
        raise EpisodeDataError(f"{path}: actions have shape {actions.shape}; they must be (N, 3), or (N, 2).")
    if images.ndim != 4:
        raise EpisodeDataError(f"{path}: images have shape {images.shape}; they must be (N, height, width, 3).")
    text = told.decode() if isinstance(told, bytes) else str(told)
    return Demonstration(
        name=path.name,
        instruction=text or instruction_from(path),
        scenario=scenario_of(path),
        images={CAMERA: images},
        states=states,
        actions=actions,
    )


def scenario_of(path: Path) -> str:
    """The scenario tag of a file name, `unnamed` when it has none."""
    found = _SCENARIO.search(path.stem)
    return found.group(0) if found else "unnamed"


def instruction_from(path: Path) -> str:
    """What the Mobile-VLA loaders assume when a file says nothing: the side from the file name.

    Raises EpisodeDataError when the name gives no side either.
    """
    side = re.search(r"(left|right)", path.stem)
    if side is None:
        raise EpisodeDataError(
            f"{path} has no language_instruction and its name says neither left nor right; add the data set, or rename it."
        )
    return f"navigate around the obstacle on the {side.group(0)} to the bottle"


def read_folder(folder: Path) -> tuple[Iterator[Demonstration], ActionSpec, ObservationSpec]:
    """Episodes (read one at a time) and what their numbers mean. Raises EpisodeDataError for an empty folder."""
    files = files_of(folder)
    if not files:
        raise EpisodeDataError(f"{folder} holds no .h5 files.")
    first = read_episode(files[0])
    height, width = first.images[CAMERA].shape[1:3]
    observation = ObservationSpec(state=_state_names(files[0], first.states), cameras=((CAMERA, height, width),))
    dimensions = first.actions.shape[1]
    spec = ActionSpec(dimensions=ACTIONS.dimensions[:dimensions], frame="base", rate_hz=RATE_HZ, gripper_closed_sign=1)

    def episodes() -> Iterator[Demonstration]:
        for path in files:
            item = read_episode(path)
            if item.actions.shape[1] != dimensions:
                raise EpisodeDataError(
                    f"{path} has {item.actions.shape[1]} action dimensions and {files[0].name} has {dimensions}; "
                    "a data set has one."
                )
            yield item

    return episodes(), spec, observation


def _state_names(path: Path, states: Array) -> tuple[str, ...]:
    if states.shape[1] == 0:
        return ()
    with h5py.File(path, "r") as file:
        return tuple(str(name) for name in file["states"].attrs["names"])
