"""H.264 video: constant frame rate, a key frame every 10 frames, fragmented so that a killed process loses little."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from failsight.core.types import Array
from failsight.storage.disk import writing

CODEC = "h264"


def frames_per_second(rate_hz: float) -> int | float:
    """The rate as files say it: exact, whole where it is whole; 1 where a log does not say (0)."""
    return 1 if rate_hz == 0 else int(rate_hz) if float(rate_hz).is_integer() else rate_hz


class _WholeFile(io.FileIO):
    """Writes all of it or raises: FFmpeg's own file, and a plain one, drop what a full disk did not take."""

    refused: OSError | None = None
    """What the disk said; PyAV raises something else in its place."""

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        try:
            while rest:
                rest = rest[super().write(rest) or 0 :]
        except OSError as error:
            self.refused = error
            raise
        return memoryview(data).nbytes


class VideoWriter:
    """Writes (H, W, 3) uint8 frames to an MP4 file."""

    def __init__(self, path: Path, height: int, width: int, fps: float) -> None:
        """`fps` need not be whole: frame k stands at k / fps seconds."""
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
        self._path, self._count, self._closed = path, 0, False
        rate = Fraction(fps).limit_denominator(10_000)
        with writing(path):
            self._file = _WholeFile(path, "wb")
        self._container = av.open(self._file, "w", format="mp4", options=options)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"preset": "ultrafast", "crf": "20", "g": "10", "bf": "0"}
        self._stream.codec_context.time_base = 1 / rate

    def add(self, image: Array) -> None:
        """Append one frame (H, W, 3) uint8. Raises StorageError when the disk refuses."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = self._count
        self._count += 1
        with self._muxing():
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    def close(self) -> None:
        """Flush and finish the file. Raises StorageError when the disk refuses."""
        if self._closed:
            return
        self._closed = True
        with self._muxing():
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()
            self._file.close()

    @contextmanager
    def _muxing(self) -> Iterator[None]:
        with writing(self._path):
            try:
                yield
            except av.error.FFmpegError as error:
                raise self._file.refused or error from error
