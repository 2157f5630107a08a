"""Mobile-VLA recordings: one HDF5 file per episode, read and written.

Layout: `images` (N, H, W, 3) uint8; `actions` (N, 3) float = linear_x, linear_y (m/s), angular_z (rad/s);
`action_event_types` (N,); optional `language_instruction`: one text (scalar or (1,)) or one per frame; attributes
`episode_name`, `num_frames`. The scenario stands in the file name (`episode_00012_2box_hori_left.h5`). Ours also holds
`states` (N, S) and the names of its entries, which readers of the original ignore, and checksums throughout. Lengths
are those of the arrays; `num_frames` is not used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from failsight.core.errors import EpisodeDataError, StorageError
from failsight.core.foreign import read_array, read_pictures, read_text, require_distinct
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.types import Array
from failsight.episodes.demonstrations import Demonstration
from failsight.episodes.formats.format import DemonstrationFormat, Demonstrations, Format, ReadOptions
from failsight.episodes.formats.hdf5 import UNREADABLE, find_dataset, hdf5_file, read_dataset
from failsight.storage.hdf5_glance import require_harmless

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
_CHECKED = ("v110", "v110")
"""The oldest file format whose every part has a checksum, so that a flipped bit is found."""
_SCENARIO = re.compile(r"\d+box_(?:vert|hori)_(?:left|right)(?:_\w+)?")


def files_of(folder: Path) -> list[Path]:
    """The `.h5` and `.hdf5` files of a folder, sorted; hidden ones are none of ours."""
    return sorted(
        path
        for path in folder.glob("*")
        if path.suffix.lower() in (".h5", ".hdf5") and path.is_file() and not path.name.startswith(".")
    )


def is_recordable(actions: ActionSpec, observations: ObservationSpec) -> bool:
    """Whether these files hold what such a robot does and sees: a base that slides or turns, one front camera."""
    count = len(actions.dimensions)
    same = (actions.dimensions, actions.rate_hz) == (ACTIONS.dimensions[:count], RATE_HZ)
    return same and count >= 2 and [name for name, _, _ in observations.cameras] == [CAMERA]


def write_episode(path: Path, item: Demonstration, state_names: tuple[str, ...] = ()) -> None:
    """Write one file; it appears whole or not at all. Raises StorageError when the disk refuses."""
    partial = path.with_name(path.name + ".partial")
    actions = np.zeros((len(item.actions), 3), np.float32)
    actions[:, : item.actions.shape[1]] = item.actions
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(partial, "w", libver=_CHECKED) as file:
            file.create_dataset(
                "images", data=item.images[CAMERA], compression="gzip", compression_opts=1, fletcher32=True
            )
            file.create_dataset("actions", data=actions, fletcher32=True)
            events = [b"episode_start"] + [b"keyboard_action"] * (len(actions) - 1)
            file.create_dataset("action_event_types", data=np.array(events), fletcher32=True)
            file.create_dataset("language_instruction", data=_told(item), fletcher32=True)
            if state_names:
                states = file.create_dataset("states", data=item.states.astype(np.float32), fletcher32=True)
                states.attrs["names"] = np.array([name.encode() for name in state_names])
            file.attrs["episode_name"], file.attrs["num_frames"] = np.bytes_(item.name.encode()), len(actions)
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}. Free disk space or choose another folder."
        ) from error


def _told(item: Demonstration) -> Array:
    """The instruction, or one per frame where it changes."""
    texts = [item.instruction] * (len(item.actions) if item.changes else 1)
    for start, text in item.changes:
        texts[start:] = [text] * (len(texts) - start)
    return np.array([text.encode() for text in texts])


def read_episode(path: Path, order: tuple[str, ...] | None = None) -> Demonstration:
    """One file; `order`: names of the state entries as wanted.

    Raises EpisodeDataError: damaged, incomplete, without instruction, empty, of a wrong shape, not finite, other states,
    too large, or pointing outside the file.
    """
    require_harmless([path], _glance)
    return _read(path, order)


def _glance(path: Path) -> None:
    """Everything but the pictures' values; one part that is refused does not spare the next."""
    with hdf5_file(path) as file:
        for part in (_count_blocks, _actions, _states, _texts):
            with suppress(EpisodeDataError, *UNREADABLE):
                part(file, path)


def _count_blocks(file: h5py.File, path: Path) -> int:
    images = find_dataset(file, "images", path)
    return int(images.id.get_num_chunks()) if images.chunks else 0


def _read(path: Path, order: tuple[str, ...] | None) -> Demonstration:
    with hdf5_file(path) as file:
        missing = [name for name in ("images", "actions") if name not in file]
        if missing:
            raise EpisodeDataError(f"{path} lacks {' and '.join(missing)}; it is not a Mobile-VLA recording.")
        images = read_pictures(read_dataset(file, "images", path), f"{path}: images")
        actions = _actions(file, path)
        states, names = _states(file, path)
        states = states if names else actions[:, :0]
        texts = _texts(file, path)
    if len(texts) not in (1, len(actions)):
        raise EpisodeDataError(
            f"{path}: {len(texts)} instructions for {len(actions)} frames; one text, or one per frame, is wanted."
        )
    if order not in (None, names) and len(actions):
        assert order is not None
        states = states[:, [names.index(name) for name in _same(names, order, path)]]
    return Demonstration(
        name=path.name,
        instruction=texts[0],
        changes=tuple((t, texts[t]) for t in range(1, len(texts)) if texts[t] != texts[t - 1]),
        scenario=scenario_of(path),
        images={CAMERA: images},
        states=states,
        actions=actions,
    )


def _actions(file: h5py.File, path: Path) -> Array:
    """(N, 2 or 3) in the order of `ACTIONS`, by name where the file says names."""
    values = read_dataset(file, "actions", path)
    if values.ndim != 2 or values.shape[1] not in (2, 3):
        raise EpisodeDataError(f"{path}: actions have shape {values.shape}; they must be (N, 3), or (N, 2).")
    names = _names_of(file, "actions", path)
    wanted = tuple(dimension.name for dimension in ACTIONS.dimensions[: values.shape[1]])
    if names not in ((), wanted):
        values = values[:, [names.index(name) for name in _same(names, wanted, path)]]
    return (
        read_array(values, f"{path}: actions", (None, values.shape[1]))
        if len(values)
        else np.zeros(values.shape, np.float32)
    )


def _states(file: h5py.File, path: Path) -> tuple[Array, tuple[str, ...]]:
    """(N, S) and S names, none when the file holds no states; one number per frame is one entry."""
    if "states" not in file:
        return np.zeros((0, 0), np.float32), ()
    values = read_dataset(file, "states", path)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise EpisodeDataError(f"{path}: states have shape {values.shape}; they must be (N, entries).")
    names = _names_of(file, "states", path) or tuple(f"state_{i}" for i in range(values.shape[1]))
    if len(names) != values.shape[1]:
        raise EpisodeDataError(f"{path}: states have {values.shape[1]} entries and {len(names)} names.")
    if not values.size:
        return np.zeros(values.shape, np.float32), names
    return read_array(values, f"{path}: states", (None, len(names))), names


def _names_of(file: h5py.File, dataset: str, path: Path) -> tuple[str, ...]:
    found = file[dataset].attrs.get("names")
    names = (
        () if found is None else tuple(read_text(name, f"{path}: a name of {dataset}") for name in np.atleast_1d(found))
    )
    require_distinct(names, str(path), f"the name in {dataset}")
    return names


def _same(names: tuple[str, ...], wanted: tuple[str, ...], path: Path) -> tuple[str, ...]:
    if sorted(names) != sorted(wanted):
        raise EpisodeDataError(
            f"{path} has the entries {', '.join(names) or 'none'} where {', '.join(wanted) or 'none'} are wanted; a data "
            "set has the same in every file."
        )
    return wanted


def _texts(file: h5py.File, path: Path) -> list[str]:
    """One text, or one per frame; from the file name where the file says nothing."""
    where = f"{path}: language_instruction"
    told = read_dataset(file, "language_instruction", path) if "language_instruction" in file else np.array([])
    if told.ndim > 1:
        raise EpisodeDataError(f"{where} has shape {told.shape}; one text, or one per frame, is wanted.")
    lines = [_line(value, where) for value in np.atleast_1d(told).tolist()] if told.size else [""]
    return [line or instruction_from(path) for line in (lines if len(set(lines)) > 1 else lines[:1])]


def _line(value: object, where: str) -> str:
    """The text, empty when nothing stands there; padding and a byte-order mark go."""
    if isinstance(value, bytes | str):
        pad, mark = (b"\0", b"\xef\xbb\xbf") if isinstance(value, bytes) else ("\0", "\ufeff")
        value = value.rstrip(pad).removeprefix(mark)  # type: ignore[arg-type]
        if not value.strip():
            return ""
    return read_text(value, where)


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
    require_harmless(files, _glance)
    first = _read(files[0], None)
    height, width = first.images[CAMERA].shape[1:3]
    with hdf5_file(files[0]) as file:
        names = _states(file, files[0])[1]
    observation = ObservationSpec(state=names, cameras=((CAMERA, height, width),))
    dimensions = first.actions.shape[1]
    spec = ActionSpec(dimensions=ACTIONS.dimensions[:dimensions], frame="base", rate_hz=RATE_HZ, gripper_closed_sign=1)

    def episodes() -> Iterator[Demonstration]:
        for path in files:
            item = _read(path, names)
            if item.actions.shape[1] != dimensions:
                raise EpisodeDataError(
                    f"{path} has {item.actions.shape[1]} action dimensions and {files[0].name} has {dimensions}; "
                    "a data set has one."
                )
            yield item

    return episodes(), spec, observation


def _sniff(path: Path) -> str:
    count = len(files_of(path)) if path.is_dir() else 0
    return f"{count} Mobile-VLA HDF5 files" if count else ""


def _read_all(path: Path, options: ReadOptions) -> Demonstrations:
    options.refuse_fields("mobile-vla")
    return read_folder(path)


FORMAT: DemonstrationFormat = Format(name="mobile-vla", sniff=_sniff, read=_read_all)
