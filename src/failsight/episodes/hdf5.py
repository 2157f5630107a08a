"""HDF5 files of others: bounded, and never leading outside themselves.

A file can point to other files (external links, external storage, virtual datasets) and declare terabytes in a few
bytes; both are refused before anything is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import h5py
import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array

MOST_BYTES = 4 * 2**30
"""Of one dataset in memory."""
MOST_TEXT_BYTES = 2**20
MOST_CHUNK_BYTES = 256 * 2**20
"""Of one compressed block, which is unpacked whole."""
_DEEPEST = 16


@contextmanager
def hdf5_file(path: Path) -> Iterator[h5py.File]:
    """An open file; whatever goes wrong inside is one sentence naming it. Raises EpisodeDataError."""
    try:
        if not path.is_file():
            raise OSError("there is no such file")
        with h5py.File(path, "r") as file:
            yield file
    except (
        OSError,
        KeyError,
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
        NotImplementedError,
    ) as error:
        reason = str(error).strip("'\"").split("\n")[0] or type(error).__name__
        raise EpisodeDataError(
            f"{path} cannot be read ({reason}); it is damaged or half-written. Delete it or record it again."
        ) from error


def read_dataset(file: h5py.File, name: str, path: Path) -> Array:
    """A dataset of a file's top level. Raises EpisodeDataError: a link out of the file, too large, no dataset."""
    where = f"{path}: {name}"
    _require_inside(file, name, where)
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise EpisodeDataError(f"{where} is no dataset.")
    if found.external or found.is_virtual:
        raise EpisodeDataError(f"{where} keeps its values in other files, which is not followed; store them inside.")
    _require_bounded(found, where)
    return np.asarray(found[()])


def _require_inside(file: h5py.File, name: str, where: str) -> None:
    """Follow soft links by hand, one name at a time, and refuse any that leaves the file or never ends."""
    todo, place, followed = name.strip("/").split("/"), file, 0
    while todo:
        part = todo.pop(0)
        if part in ("", "."):
            continue
        link = place.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise EpisodeDataError(f"{where} is a link to another file ({link.filename!r}), which is not followed.")
        if isinstance(link, h5py.SoftLink):
            followed += 1
            if followed > _DEEPEST:
                raise EpisodeDataError(f"{where} is a link that leads in a circle.")
            todo = link.path.strip("/").split("/") + todo
            place = file if link.path.startswith("/") else place
            continue
        if not isinstance(link, h5py.HardLink):
            raise EpisodeDataError(f"{where} is a link of an unknown kind.")
        if todo:
            place = place[part]


def _require_bounded(dataset: h5py.Dataset, where: str) -> None:
    if dataset.shape is None:
        raise EpisodeDataError(f"{where} is empty.")
    text = dataset.dtype.kind in "SUO"
    size, most = prod(dataset.shape) * dataset.dtype.itemsize, MOST_TEXT_BYTES if text else MOST_BYTES
    if size > most:
        raise EpisodeDataError(f"{where} declares {size:,} bytes; at most {most:,} are read.")
    if dataset.dtype.kind not in "biufSUO" or (
        dataset.dtype.kind == "O" and h5py.check_string_dtype(dataset.dtype) is None
    ):
        raise EpisodeDataError(f"{where} holds {dataset.dtype}; numbers or text are wanted.")
    block = prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
    if block > MOST_CHUNK_BYTES:
        raise EpisodeDataError(
            f"{where} is stored in blocks of {block:,} bytes; at most {MOST_CHUNK_BYTES:,} are read."
        )
