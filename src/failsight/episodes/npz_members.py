"""Arrays of an npz file from outside: only those asked for, and none before its header, size and checksum were seen.

Objects (pickles) are never read. What an array claims to be is compared with the bytes that are there before memory is
taken, so a header that promises 40 TiB costs a sentence.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array

MEMBER_LIMIT = 2**30
"""Bytes of one array after unpacking."""
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_KINDS = "biufUS"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, SyntaxError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


def read_members(path: Path, needed: Sequence[str], wanted: Sequence[str] = ()) -> dict[str, Array]:
    """The arrays called `needed`, and of those called `wanted` the ones that are there.

    Raises EpisodeDataError naming file and array when one is missing, damaged, of objects, or larger than the limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = _members(path, archive)
            missing = [name for name in needed if name not in infos]
            if missing:
                raise EpisodeDataError(f"{path} has no array {', '.join(missing)}; it is not an ActProbe npz log.")
            names = [*needed, *(name for name in wanted if name in infos)]
            return {name: _read(f"{path}: {name}", archive, infos[name]) for name in names}
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


def _read(where: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    if info.file_size > MEMBER_LIMIT:
        raise EpisodeDataError(
            f"{where} takes {info.file_size >> 20} MiB, more than the limit of {MEMBER_LIMIT >> 20}; split the file."
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
    data = stream.read(there + 1)  # one more: the checksum is compared at the end of the member
    if len(data) != there:
        raise EpisodeDataError(f"{where} holds {len(data)} bytes instead of {there}; the file was cut off.")
    flat = np.frombuffer(data, dtype) if there else np.zeros(math.prod(shape), dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _said(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
