"""HDF5 files of others: bounded, and never leading outside themselves.

A file can point to other files (external links, external storage, virtual datasets) and declare terabytes in a few
bytes; both are refused before anything is read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import h5py
import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array
from failsight.storage.disk import reason

MOST_BYTES = 4 * 2**30
"""Of one dataset in memory."""
MOST_TEXT_BYTES = 2**20
MOST_CHUNK_BYTES = 256 * 2**20
"""Of one compressed block, which is unpacked whole."""
UNREADABLE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)
"""What h5py raises on damaged files."""
_DEEPEST = 16
_DEFLATE, _LZF = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF
_FILTERS = (_DEFLATE, _LZF, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)


@contextmanager
def hdf5_file(path: Path) -> Iterator[h5py.File]:
    """An open file; whatever goes wrong inside is one sentence naming it. Raises EpisodeDataError."""
    try:
        if not path.is_file():
            raise OSError("there is no such file")
        with h5py.File(path, "r") as file:
            yield file
    except UNREADABLE as error:
        raise EpisodeDataError(
            f"{path} cannot be read ({reason(error)}); it is damaged or half-written. Delete it or record it again."
        ) from error


def read_dataset(file: h5py.File, name: str, path: Path) -> Array:
    """A dataset of a file, of any shape (...). Raises EpisodeDataError: a link out of the file, too large, none."""
    found = find_dataset(file, name, path)
    _require_honest(found, f"{path}: {name}")
    return np.asarray(found[()])


def find_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """The dataset, before its values are read. Raises as above."""
    where = f"{path}: {name}"
    _require_inside(file, name, where)
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise EpisodeDataError(f"{where} is no dataset.")
    if found.external or found.is_virtual:
        raise EpisodeDataError(f"{where} keeps its values in other files, which is not followed; store them inside.")
    _require_bounded(found, where)
    return found


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


def _require_honest(dataset: h5py.Dataset, where: str) -> None:
    """No block may unpack to more than it declares: the library would unpack it whole before it notices."""
    made = dataset.id.get_create_plist()
    filters = [made.get_filter(i) for i in range(made.get_nfilters())]
    codes, size = [code for code, *_ in filters], prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
    unread = [name or code for code, _, _, name in filters if code not in _FILTERS]
    if unread or codes.count(_DEFLATE) > 1:
        raise EpisodeDataError(f"{where} is packed with {unread or 'deflate twice'}, which is not read; use gzip.")
    room = size + size // 8 + 64
    if any(code == _LZF and max(values, default=0) > room for code, _, values, _ in filters):
        raise EpisodeDataError(f"{where} has a block that unpacks to more than the {size:,} bytes it declares.")
    if _DEFLATE in codes:
        _require_deflated(dataset, codes.index(_DEFLATE), room, where)


def _require_deflated(dataset: h5py.Dataset, place: int, room: int, where: str) -> None:
    blocks: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(lambda info: blocks.append(info.chunk_offset))
    for offset in blocks:
        mask, packed = dataset.id.read_direct_chunk(offset)
        if mask >> place & 1:
            continue
        try:
            unpacked = len(zlib.decompressobj().decompress(packed, room))
        except zlib.error as error:
            raise EpisodeDataError(f"{where} has a damaged block ({reason(error)}).") from error
        if unpacked == room:
            raise EpisodeDataError(f"{where} has a block that unpacks to more than {room:,} bytes; it declares less.")
