"""Saved states as bytes: a JSON header and raw arrays, no pickle."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array

_MAGIC = b"FSST"


def pack_state(values: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """JSON-able `values` and named `arrays` (...) of any shape as one byte string; floats survive exactly.

    >>> unpack_state(pack_state({"step": 3}, {"q": np.arange(2.0)}))[0]
    {'step': 3}
    """
    specs = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
    header = json.dumps({"values": values, "arrays": specs}).encode()
    body = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())
    return _MAGIC + struct.pack("<I", len(header)) + header + body


def unpack_state(state: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """Inverse of `pack_state`; the arrays (...) have their shapes again, and are copies.

    Raises EpisodeDataError when the bytes are not a whole saved state.
    """
    if state[:4] != _MAGIC:
        raise EpisodeDataError("These bytes are not a saved state of failsight.")
    try:
        (length,) = struct.unpack("<I", state[4:8])
        header = json.loads(state[8 : 8 + length])
    except (ValueError, struct.error) as error:
        raise EpisodeDataError(f"The saved state ends inside its header ({error}); it was truncated.") from error
    arrays, at = {}, 8 + length
    for name, dtype, shape in header["arrays"]:
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if at + count > len(state):
            raise EpisodeDataError(f"The saved state ends inside {name!r}; it was truncated.")
        arrays[name] = np.frombuffer(state[at : at + count], dtype).reshape(shape).copy()
        at += count
    return header["values"], arrays
