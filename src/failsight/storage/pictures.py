"""Pictures of others, found by their time: which frame of a video, or which embedded file, a row saw.

A row gets the nearest picture within half a step. None within it (the camera dropped a frame, the video was cut short,
the table points elsewhere) is a refusal, never the next frame that comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.container
import av.error
import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array
from failsight.storage.disk import reason

EPISODE_BYTES = 4 * 2**30
"""Pictures of one episode and camera in memory; longer episodes have to be cut or scaled down."""
_STRICT = {"err_detect": "explode"}
"""A damaged picture is an error, not a guess from its neighbours."""
_CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "matroska", ".avi": "avi"}
"""Named, not probed: a playlist under another name would have FFmpeg open files elsewhere."""
_CODECS = {b"\x89PNG": "png", b"\xff\xd8\xff": "mjpeg", b"RIFF": "webp", b"BM": "bmp"}
"""First bytes of a picture file -> its decoder."""


def require_room(frames: int, size: tuple[int, int], where: str) -> None:
    """Refuse pictures of one episode that would not fit into memory."""
    wanted = 3 * frames * size[0] * size[1]
    if wanted > EPISODE_BYTES:
        raise EpisodeDataError(
            f"{where}: {frames} pictures of {size[0]} x {size[1]} take {wanted / 2**30:.1f} GiB and one episode may take "
            f"{EPISODE_BYTES / 2**30:g}; cut the episode or scale its pictures down."
        )


class Video:
    """One file and the times of its pictures."""

    def __init__(self, path: Path) -> None:
        """Raises EpisodeDataError when the file is missing, damaged or no video."""
        self.path = path
        with _errors(path), self._open() as container:
            if not container.streams.video:
                raise EpisodeDataError(f"{path} holds no video.")
            stream = container.streams.video[0]
            assert stream.time_base is not None
            self.size, self._base = (stream.height, stream.width), stream.time_base
            stamps = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
        self._stamps = np.unique(np.array(stamps, np.int64))
        self._times = self._stamps * float(self._base)

    def _open(self) -> av.container.InputContainer:
        if not self.path.is_file():
            raise OSError("there is no such file")
        kind = _CONTAINERS.get(self.path.suffix.lower())
        if kind is None:
            raise OSError(f"not one of {', '.join(_CONTAINERS)}")
        return av.open(str(self.path.absolute()), format=kind)

    def at(self, times: Array, tolerance_s: float, size: tuple[int, int], where: str) -> Array:
        """(T, H, W, 3) uint8, the picture nearest to each of T times in seconds.

        Raises EpisodeDataError naming the file: a time without a picture, another size, damage.
        """
        if self.size != size:
            raise EpisodeDataError(
                f"{self.path} has pictures of {self.size[0]} x {self.size[1]} and the data set says {size[0]} x {size[1]}."
            )
        require_room(len(times), size, where)
        chosen = self._nearest(times, tolerance_s, where)
        images = np.empty((len(times), *size, 3), np.uint8)
        at: dict[int, list[int]] = {}
        for row, stamp in enumerate(chosen.tolist()):
            at.setdefault(stamp, []).append(row)
        with _errors(self.path):
            for stamp, picture in self._decode(set(at)):
                images[at.pop(stamp)] = picture
        if at:
            raise EpisodeDataError(f"{self.path}: the picture at {min(at) * float(self._base):g} s cannot be decoded.")
        return images

    def _nearest(self, times: Array, tolerance_s: float, where: str) -> Array:
        """(T,) time stamps of the chosen pictures."""
        if not len(self._times):
            raise EpisodeDataError(f"{self.path} holds no pictures; the video was cut short.")
        right = np.searchsorted(self._times, times).clip(0, len(self._times) - 1)
        left = (right - 1).clip(0)
        nearer = np.abs(self._times[left] - times) <= np.abs(self._times[right] - times)
        index = np.where(nearer, left, right)
        away = np.abs(self._times[index] - times)
        if (away > tolerance_s).any():
            row = int(np.argmax(away > tolerance_s))
            raise EpisodeDataError(
                f"{where}, frame {row}: {self.path} has no picture within {tolerance_s:.3g} s of {times[row]:.3f} s "
                f"(the nearest is at {self._times[index[row]]:.3f} s); frames were dropped or the video was cut short."
            )
        return np.asarray(self._stamps[index])

    def _decode(self, wanted: set[int]) -> Iterator[tuple[int, Array]]:
        """Wanted pictures by time stamp, in order, from the last key frame before the first of them."""
        first, last = min(wanted), max(wanted)
        for seek in (True, False):
            with self._open() as container:
                stream = container.streams.video[0]
                stream.codec_context.options = {**_STRICT, "max_pixels": str(self.size[0] * self.size[1] + 2**16)}
                if seek and first > self._stamps[0]:
                    container.seek(first, stream=stream)
                late = False
                for number, frame in enumerate(container.decode(stream)):
                    late = number == 0 and seek and frame.pts is not None and frame.pts > first
                    if late:
                        break
                    if frame.pts in wanted and not frame.is_corrupt:
                        yield int(frame.pts), np.asarray(frame.to_ndarray(format="rgb24"))
                    if frame.pts is not None and frame.pts >= last:
                        return
                if not late:
                    return


def embedded(value: Any, root: Path, size: tuple[int, int], where: str) -> Array:
    """(H, W, 3) uint8 of one `image` value, {bytes, path}: its bytes, else the file it names inside the data set.

    Raises EpisodeDataError when there is none, it cannot be decoded, or its height and width are not `size`.
    """
    data, name = (value or {}).get("bytes"), (value or {}).get("path")
    if data is None and name:
        data = _beside(root, str(name), where)
    if not data:
        raise EpisodeDataError(f"{where}: there is no picture.")
    kind = next((kind for start, kind in _CODECS.items() if data.startswith(start)), None)
    if kind is None:
        raise EpisodeDataError(f"{where}: the picture is neither PNG, JPEG, WebP nor BMP.")
    try:
        codec = av.CodecContext.create(kind, "r")
        assert isinstance(codec, av.VideoCodecContext)
        codec.options = {**_STRICT, "max_pixels": str(max(size[0] * size[1], 2**16))}
        frame = [*codec.decode(av.Packet(data)), *codec.decode(None)][0]
        picture = np.asarray(frame.to_ndarray(format="rgb24"))
    except (OSError, ValueError, IndexError, MemoryError, av.error.FFmpegError) as error:
        raise EpisodeDataError(f"{where}: the picture cannot be decoded ({reason(error)}).") from error
    if picture.shape[:2] != size:
        height, width = picture.shape[:2]
        raise EpisodeDataError(
            f"{where}: the picture is {height} x {width} and the data set says {size[0]} x {size[1]}."
        )
    return picture


def _beside(root: Path, name: str, where: str) -> bytes:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise EpisodeDataError(f"{where}: the picture {name!r} lies outside the data set.")
    try:
        return (root / name).read_bytes()
    except OSError as error:
        raise EpisodeDataError(f"{where}: the picture {root / name} cannot be read ({error.strerror}).") from error


def inside(root: Path, template: Any, where: str, **fields: Any) -> Path:
    """A path made from a template of `info.json`. Raises EpisodeDataError when it leaves the folder."""
    try:
        name = str(template).format(**fields)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise EpisodeDataError(f"{where}: the path {template!r} cannot be filled in ({reason(error)}).") from error
    if Path(name).is_absolute() or ".." in Path(name).parts or not isinstance(template, str):
        raise EpisodeDataError(f"{where}: the path {name!r} lies outside the data set.")
    return root / name


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """What FFmpeg raises -> one sentence naming the file."""
    try:
        yield
    except (OSError, ValueError, MemoryError, OverflowError, av.error.FFmpegError) as error:
        raise EpisodeDataError(f"Cannot read {path} ({reason(error)}); the video is damaged or missing.") from error
