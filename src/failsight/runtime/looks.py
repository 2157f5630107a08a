"""Whether the cameras that are watched give other pictures; a picture that stays the same to the last bit is a frozen one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


class Looks:
    """Remembers a checksum of the last picture of every camera, not the picture, whose memory may be used again."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self._cameras = tuple(cameras)
        self._last = dict[str, int]()

    def at(self, observation: Mapping[str, Any]) -> Iterator[tuple[str, bool, bool]]:
        """Of every camera its name, whether its picture is another one than before, and whether there is one at all."""
        for name in self._cameras:
            found = observation.get(name)
            mark = -1 if found is None else zlib.crc32(np.ascontiguousarray(found).tobytes())
            yield name, found is not None and mark != self._last.get(name), found is not None
            self._last[name] = mark
