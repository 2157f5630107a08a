"""HDF5 with names of their own: arrays at the top (as in npz), or one group per episode (as in robomimic and LIBERO)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array
from failsight.episodes.formats.fields import SCALARS, Fields
from failsight.episodes.formats.format import Format, LogFormat
from failsight.episodes.formats.hdf5 import hdf5_file, read_dataset
from failsight.episodes.formats.mapped import Source
from failsight.episodes.formats.npz_arrays import sheets_of_arrays
from failsight.episodes.formats.rows import Sheet
from failsight.storage.hdf5_glance import require_harmless

_DEEPEST, _MOST = 4, 100_000
"""Levels of groups, and objects of a file, that are looked at."""


def _children(group: h5py.Group, kind: type) -> list[str]:
    """Names of what lies in the file itself, numbers in order of size; links elsewhere are nobody's."""
    names = [
        n
        for n in group
        if isinstance(group.get(n, getlink=True), h5py.HardLink) and group.get(n, getclass=True) is kind
    ]
    return sorted(
        names,
        key=lambda n: [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", n)],
    )


def _episodes(file: h5py.File, path: Path) -> list[str]:
    """Places of the groups that hold arrays, at the least depth at which there are any; the top itself is `/`."""
    level = ["/"]
    for _ in range(_DEEPEST):
        if len(level) > _MOST:
            raise EpisodeDataError(f"{path} has more than {_MOST} groups; split it.")
        found = [place for place in level if _children(file[place], h5py.Dataset)]
        if found:
            return found
        level = [f"{place.rstrip('/')}/{name}" for place in level for name in _children(file[place], h5py.Group)]
    return []


def _inside(group: h5py.Group) -> list[str]:
    """Names of the arrays of an episode, those of its groups with their path, and of its attributes."""
    names = _children(group, h5py.Dataset)
    for inner in _children(group, h5py.Group):
        names += [f"{inner}/{name}" for name in _children(group[inner], h5py.Dataset)]
    return [*names, *(name for name in group.attrs if name not in names)]


def _look(path: Path) -> tuple[str, ...]:
    with hdf5_file(path) as file:
        places = _episodes(file, path)
        return tuple(_inside(file[places[0]])) if places else ()


def _names(path: Path) -> tuple[str, ...]:
    require_harmless([path], _look)
    return _look(path)


def _glance(path: Path) -> None:
    with hdf5_file(path) as file:
        for place in _episodes(file, path):
            for name in _inside(file[place]):
                with suppress(EpisodeDataError):
                    _value(file, place, name, path)


def _value(file: h5py.File, place: str, name: str, path: Path) -> Any:
    group = file[place]
    if name in group:
        return read_dataset(file, f"{place.rstrip('/')}/{name}", path)
    if name not in group.attrs:
        raise EpisodeDataError(f"{path}: {place} has no {name}.")
    value = group.attrs[name]
    return value if isinstance(value, np.ndarray) else np.array(value)


def _sheets(path: Path, fields: Fields) -> Iterator[Sheet]:
    require_harmless([path], _glance)
    with hdf5_file(path) as file:
        places = _episodes(file, path)
        for place in places:
            values = {name: _plain(_value(file, place, name, path)) for name in fields.wanted}
            if places == ["/"]:
                yield from sheets_of_arrays(str(path), values, fields)
                return
            yield _of_group(path, place, values, fields)


def _of_group(path: Path, place: str, values: dict[str, Array], fields: Fields) -> Sheet:
    """A group is an episode; an outcome per step counts as told at the last one."""
    where, one = f"{path}: {place}", dict[str, Any](values)
    for role in SCALARS:
        name = fields.one(role)
        if name and values[name].ndim == 1 and values[name].size > 1:
            column = values[name].tolist()
            if role != "success" or (any(column[:-1]) and not all(column)):
                raise EpisodeDataError(f"{where}: {name} changes within the episode.")
            one[name] = column[-1]
    return Sheet(where, one)


def _plain(value: Array) -> Array:
    """Text of variable length as text."""
    if value.dtype.kind != "O":
        return value
    return np.array(
        [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in np.ravel(value)]
    ).reshape(value.shape)


_SOURCE = Source(kind="HDF5", suffixes=(".h5", ".hdf5"), names=_names, sheets=_sheets)
FORMAT: LogFormat = Format(name="hdf5", sniff=_SOURCE.sniff, read=_SOURCE.read)
