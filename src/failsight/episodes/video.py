"""H.264 video: constant frame rate, a key frame every 10 frames, fragmented so that a killed process loses little."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array
from failsight.episodes.disk import reason, writing

CODEC = "h264"


def frames_per_second(rate_hz: float) -> int | float:
    """The rate as files say it: exact, whole where it is whole; 1 where a log does not say (0)."""
    return 1 if rate_hz == 0 else int(rate_hz) if float(rate_hz).is_integer() else rate_hz


class VideoWriter:
    """Writes (H, W, 3) uint8 frames to an MP4 file."""

    def __init__(self, path: Path, height: int, width: int, fps: float) -> None:
        """`fps` need not be whole: frame k stands at k / fps seconds."""
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
        self._path, self._count, self._closed = path, 0, False
        rate = Fraction(fps).limit_denominator(10_000)
        with writing(path):
            self._file = path.open("wb", buffering=0)  # a file of ours: FFmpeg's own loses the error of a full disk
        self._container = av.open(self._file, "w", format="mp4", options=options)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"preset": "ultrafast", "crf": "20", "g": "10", "bf": "0"}
        self._stream.codec_context.time_base = 1 / rate

    def add(self, image: Array) -> None:
        """Append one frame. Raises StorageError when the disk refuses."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = self._count
        self._count += 1
        with writing(self._path):
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    def close(self) -> None:
        """Flush and finish the file. Raises StorageError when the disk refuses."""
        if self._closed:
            return
        self._closed = True
        with writing(self._path):
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()
            self._file.close()


def read_video(path: Path) -> Iterator[Array]:
    """Frames (H, W, 3) uint8 in order. Raises EpisodeDataError naming the file when it is missing or damaged."""
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield np.asarray(frame.to_ndarray(format="rgb24"))
    except (OSError, av.error.FFmpegError, IndexError, ValueError) as error:
        raise EpisodeDataError(f"Cannot read {path} ({reason(error)}); the video is damaged or missing.") from error
