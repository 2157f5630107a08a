"""PNG files from arrays."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from failsight.core.types import Array
from failsight.storage.disk import write_bytes_atomic


def png_bytes(image: Array) -> bytes:
    """(H, W, 3) uint8 -> PNG."""
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt = "rgb24"
    codec.time_base = 1  # type: ignore[assignment]
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode()])


def write_png(path: Path, image: Array) -> None:
    """Write (H, W, 3) uint8 as PNG, atomically. Raises StorageError when the disk refuses."""
    write_bytes_atomic(path, png_bytes(image))
