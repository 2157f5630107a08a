"""Arrays over msgpack as openpi writes them: maps with binary keys, C order, no pickle.

An array is `{b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [..]}`, a NumPy scalar
`{b"__npgeneric__": True, b"data": value, b"dtype": ..}`. Unpacked arrays are read-only views of the message. Source:
the wire format of openpi-client 0.1.2 (https://github.com/Physical-Intelligence/openpi).

Whoever sends a message may be hostile: its size, the number and nesting of its parts and every field of an array are
checked before anything is built from them, and whatever is wrong is an EpisodeDataError.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgpack
import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import one_line
from failsight.core.types import Array

MESSAGE_LIMIT = 32 * 2**20
"""Bytes of one message, either way: an uncompressed float32 picture of 1920 x 1080 is 24 MiB."""
PARTS_LIMIT = 2**18
"""Entries of all maps and lists of a message together (a 224 x 224 picture as nested lists has 201,000); an array is one."""
DEPTH_LIMIT = 16
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f(2|4|8)|[US][1-9]\d{0,4})")
_PYTHON: dict[str, type | tuple[type, ...]] = {"b": bool, "i": int, "u": int, "f": (int, float), "U": str, "S": bytes}
_ARRAY_FIELDS = {b"__ndarray__", b"data", b"dtype", b"shape"}
_SCALAR_FIELDS = {b"__npgeneric__", b"data", b"dtype"}


def pack(message: Any) -> bytes:
    """Maps, lists, numbers, text and arrays -> bytes. Raises EpisodeDataError for arrays of objects and large messages."""
    try:
        data = bytes(msgpack.packb(message, default=_encode))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise EpisodeDataError(f"This message cannot be sent ({error}).") from error
    _require_size(data)
    return data


def unpack(data: bytes | str) -> Any:
    """Inverse of `pack`.

    Raises EpisodeDataError when the bytes are not one whole message within the limits, and for text, which is how
    servers of this protocol say an error.
    """
    if isinstance(data, str):
        raise EpisodeDataError(f"This message is text, not msgpack: {one_line(data)}")
    _require_size(data)
    parts = _Parts()
    try:
        message = msgpack.unpackb(
            data,
            object_pairs_hook=parts.map_of,
            list_hook=parts.list_of,
            ext_hook=_refuse_extension,
            max_array_len=min(PARTS_LIMIT, len(data)),
            max_map_len=min(PARTS_LIMIT, len(data)),
        )
    except (
        ValueError,
        msgpack.exceptions.UnpackException,
        TypeError,
        OverflowError,
        RecursionError,
        MemoryError,
    ) as error:
        raise EpisodeDataError(f"This message is not whole msgpack ({str(error) or type(error).__name__}).") from error
    _require_shallow(message)
    return message


def _require_size(data: bytes) -> None:
    if len(data) > MESSAGE_LIMIT:
        raise EpisodeDataError(
            f"A message has {len(data)} bytes; at most {MESSAGE_LIMIT} are sent. Send uint8 pictures."
        )


class _Parts:
    """Builds the maps and lists of one message and counts their entries."""

    def __init__(self) -> None:
        self._left = PARTS_LIMIT

    def _count(self, size: int) -> None:
        self._left -= 1 + size
        if self._left < 0:
            raise EpisodeDataError(f"A message has more than {PARTS_LIMIT} parts; send arrays instead of lists.")

    def map_of(self, pairs: list[tuple[Any, Any]]) -> Any:
        self._count(len(pairs))
        item = dict(pairs)
        if len(item) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise EpisodeDataError(f"The key {str(twice)[:60]!r} occurs twice in a map.")
        return _decode(item)

    def list_of(self, items: list[Any]) -> list[Any]:
        self._count(len(items))
        return items


def _refuse_extension(code: int, data: bytes) -> Any:
    raise EpisodeDataError(f"A message holds a msgpack extension ({code}); send numbers, text, maps, lists or arrays.")


def _require_shallow(message: Any) -> None:
    level = [message]
    for _ in range(DEPTH_LIMIT + 1):
        inside = [
            list(item.values()) if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)
        ]
        level = [child for children in inside for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise EpisodeDataError(f"A message is nested more than {DEPTH_LIMIT} deep.")


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        dtype = _text_dtype(value.dtype)
        return {
            b"__ndarray__": True,
            b"data": np.ascontiguousarray(value).tobytes(),
            b"dtype": dtype,
            b"shape": list(value.shape),
        }
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": _text_dtype(value.dtype)}
    raise EpisodeDataError(f"A {type(value).__name__} cannot be sent; send numbers, text, maps, lists or arrays.")


def _text_dtype(dtype: np.dtype[Any]) -> str:
    if not _DTYPE.fullmatch(dtype.str):
        raise EpisodeDataError(f"Arrays of type {dtype} are not sent.")
    return dtype.str


def _decode(item: dict[Any, Any]) -> Any:
    if b"__ndarray__" in item:
        _require_fields(item, _ARRAY_FIELDS)
        return _array(_dtype(item[b"dtype"]), item[b"data"], item[b"shape"])
    if b"__npgeneric__" in item:
        _require_fields(item, _SCALAR_FIELDS)
        return _scalar(_dtype(item[b"dtype"]), item[b"data"])
    return item


def _require_fields(item: dict[Any, Any], fields: set[bytes]) -> None:
    if set(item) != fields:
        raise EpisodeDataError(
            f"An array needs the fields {sorted(fields)}; this one has {sorted(map(repr, item))[:8]}."
        )


def _dtype(text: Any) -> np.dtype[Any]:
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise EpisodeDataError(f"Arrays of type {repr(text)[:40]} are not received; send numbers or text.")
    return np.dtype(text)


def _array(dtype: np.dtype[Any], data: Any, shape: Any) -> Array:
    whole = (
        isinstance(shape, list) and len(shape) <= DEPTH_LIMIT and all(type(n) is int and 0 <= n < 2**31 for n in shape)
    )
    if not whole or not isinstance(data, bytes):
        raise EpisodeDataError(
            f"An array has the shape {repr(shape)[:60]} over {type(data).__name__}; expected lengths over bytes."
        )
    if math.prod(shape) * dtype.itemsize != len(data):
        raise EpisodeDataError(f"An array of shape {shape} and type {dtype} does not have {len(data)} bytes.")
    if dtype.kind == "U" and not _is_unicode(np.frombuffer(data, np.dtype("u4").newbyteorder(dtype.byteorder))):
        raise EpisodeDataError(f"An array of shape {shape} and type {dtype} does not hold text.")
    try:
        return np.frombuffer(data, dtype).reshape(shape) if data else np.empty(shape, dtype)
    except ValueError as error:
        raise EpisodeDataError(f"An array of shape {shape} and type {dtype} cannot be built ({error}).") from error


def _is_unicode(points: Array) -> bool:
    return not ((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any()


def _scalar(dtype: np.dtype[Any], value: Any) -> Any:
    fits = isinstance(value, _PYTHON[dtype.kind]) and (dtype.kind == "b" or not isinstance(value, bool))
    try:
        with np.errstate(over="ignore"):
            scalar = np.array(value, dtype)[()] if fits else None
    except (ValueError, TypeError, OverflowError):
        scalar = None
    if scalar is None or not _is_kept(scalar.item(), value):
        raise EpisodeDataError(f"{repr(value)[:60]} is not a value of type {dtype}.")
    return scalar


def _is_kept(found: Any, value: Any) -> bool:
    """A float may be rounded, not become infinite; text may not be cut."""
    if isinstance(value, int | float):
        return not math.isinf(found) or math.isinf(value)
    return bool(found == value)
