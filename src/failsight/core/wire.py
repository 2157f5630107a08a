"""Arrays over msgpack as openpi writes them: maps with binary keys, C order, no pickle.

An array is `{b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [..]}`, a NumPy scalar
`{b"__npgeneric__": True, b"data": value, b"dtype": ..}`. Unpacked arrays are read-only views of the message. Source:
the wire format of openpi-client 0.1.2 (https://github.com/Physical-Intelligence/openpi).
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from failsight.core.errors import EpisodeDataError


def pack(message: Any) -> bytes:
    """Maps, lists, numbers, text and arrays -> bytes. Raises EpisodeDataError for arrays of objects."""
    return bytes(msgpack.packb(message, default=_encode))


def unpack(data: bytes) -> Any:
    """Inverse of `pack`. Raises EpisodeDataError when the bytes are not a whole message."""
    try:
        return msgpack.unpackb(data, object_hook=_decode, strict_map_key=False)
    except (ValueError, msgpack.exceptions.UnpackException, TypeError, KeyError) as error:
        raise EpisodeDataError(f"This message is not whole msgpack ({error}).") from error


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        _require_plain(value.dtype)
        data = np.ascontiguousarray(value).tobytes()
        return {b"__ndarray__": True, b"data": data, b"dtype": value.dtype.str, b"shape": list(value.shape)}
    if isinstance(value, np.generic):
        _require_plain(value.dtype)
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise EpisodeDataError(f"A {type(value).__name__} cannot be sent; send numbers, text, maps, lists or arrays.")


def _decode(item: dict[Any, Any]) -> Any:
    if b"__ndarray__" in item:
        dtype = np.dtype(item[b"dtype"])
        _require_plain(dtype)
        return np.frombuffer(item[b"data"], dtype).reshape(item[b"shape"])
    if b"__npgeneric__" in item:
        return np.dtype(item[b"dtype"]).type(item[b"data"])
    return item


def _require_plain(dtype: np.dtype[Any]) -> None:
    if dtype.kind in "VOc":
        raise EpisodeDataError(f"Arrays of type {dtype} are not sent.")
