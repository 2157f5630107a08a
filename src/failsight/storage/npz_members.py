"""Arrays of an npz file from outside: only those asked for, and none before its header, size and checksum were seen.

Objects (pickles) are never read. What an array claims to be is compared with the bytes that are there before memory is
taken, so a header that promises 40 TiB costs a sentence.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array

MEMBER_LIMIT = 2**29
"""Bytes of one array after unpacking."""
_PIECE = 2**24
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_KINDS = "biufUS"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, SyntaxError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


def member_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays. Raises EpisodeDataError when the file cannot be read."""
    with _archive(path) as archive:
        return tuple(_members(path, archive))


def read_members(path: Path, needed: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, Array]:
    """The arrays (...) called `needed`, and those called `wanted` that are there; name -> most bytes it may have.

    Raises EpisodeDataError naming file and array when one is missing, damaged, of objects, or larger than the limit.
    """
    with _archive(path) as archive:
        infos = _members(path, archive)
        missing = [name for name in needed if name not in infos]
        if missing:
            raise EpisodeDataError(f"{path} has no array {', '.join(missing)}; it has {', '.join(infos)[:200]}.")
        limits = {**needed, **{name: limit for name, limit in wanted.items() if name in infos}}
        return {name: _read(f"{path}: {name}", archive, infos[name], limit) for name, limit in limits.items()}


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        raise EpisodeDataError(f"Cannot read {path} ({error.strerror or error}).") from error
    except _DAMAGE as error:
        raise EpisodeDataError(f"Cannot read {path} ({_said(error)}); the file is damaged or was cut off.") from error


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in infos:
            raise EpisodeDataError(f"{path} has two arrays called {name[:60]}.")
        infos[name] = info
    return infos


def _read(where: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> Array:
    if info.file_size > limit:
        raise EpisodeDataError(
            f"{where} takes {info.file_size >> 20} MiB, more than the limit of {limit >> 20}; split the file."
        )
    if info.compress_type not in _METHODS or info.flag_bits & 1:
        raise EpisodeDataError(f"{where} is encrypted or packed in another way than NumPy's; save it with np.savez.")
    try:
        with archive.open(info) as stream:
            return _array(where, cast(BinaryIO, stream), info.file_size)
    except _DAMAGE as error:
        raise EpisodeDataError(f"{where} cannot be read ({_said(error)}); the file is damaged.") from error


def _array(where: str, stream: BinaryIO, size: int) -> Array:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise EpisodeDataError(f"{where} is of npy version {version}; save it with np.savez.")
    shape, fortran, dtype = _HEADERS[version](stream)
    if dtype.hasobject or dtype.kind not in _KINDS:
        raise EpisodeDataError(f"{where} holds {dtype}; numbers, booleans or text are read, objects never.")
    promised, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if promised != there or any(n < 0 for n in shape):
        raise EpisodeDataError(f"{where} promises shape {shape} of {dtype} and holds {there} bytes.")
    data = np.empty(there, np.uint8)
    got = 0
    while got < there and (count := stream.readinto(data[got : got + _PIECE])):  # type: ignore[attr-defined]
        got += count
    if got != there or stream.read(1):  # reading beyond the end is what compares the checksum
        raise EpisodeDataError(f"{where} holds {got} bytes instead of {there}; the file was cut off.")
    flat = data.view(dtype) if there else np.zeros(math.prod(shape), dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _said(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
