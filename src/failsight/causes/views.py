"""What a camera usually shows at the start of an episode, and how far a picture is from it: three numbers.

All are measured on thumbnails of at most 64 pixels a side. Colours are compared after the picture was put back in
place, and a displacement is read from outlines alone, so that a moved camera and a changed light are told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from failsight.core.foreign import read_array, read_text
from failsight.core.lens import places, sample, to_bytes
from failsight.core.pictures import resize_with_pad
from failsight.core.types import Array

SIDE = 64
"""Longest side of a thumbnail, pixels."""
_REACH = 12
"""Largest displacement that is looked for, pixels of a thumbnail."""
_SETTLED = 12.0
"""Grey levels within which a pixel stays from episode to episode where only things stand that never move."""


class Distance(NamedTuple):
    """How far a picture is from what its camera usually shows; each number is 0 for the usual picture itself."""

    moved: float
    """Displacement of outlines, pixels of a thumbnail."""
    colours: float
    """Largest difference of a channel's mean, grey levels, once the picture is back in place."""
    grain: float
    """Absolute log of how much more (or less) fine detail there is than usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsualView:
    """First pictures of the episodes of one camera."""

    camera: str
    mean: Array
    """(h, w, 3) float32 mean thumbnail."""
    spread: Array
    """(h, w) float32 standard deviation over episodes, mean over channels, grey levels."""
    detail: float
    """Mean over episodes of the log of `_detail`."""

    @property
    def settled(self) -> Array:
        """(H, W) bool: where every episode shows the same."""
        return self.spread < _SETTLED

    def distance(self, picture: Array) -> Distance:
        """Of a first picture (H, W, 3) uint8."""
        small = thumbnail(picture)
        down, across = displacement(small, self.mean)
        back = shifted(small, down, across)
        inner = self.settled & inside(small.shape[:2], down, across)
        apart = (back - self.mean)[inner].mean(0) if inner.any() else np.zeros(3)
        grain = abs(np.log(_detail(small)) - self.detail)
        return Distance(float(np.hypot(down, across)), float(np.abs(apart).max()), float(grain))

    def as_dict(self) -> dict[str, Any]:
        """JSON form, in tenths of a grey level."""
        return {
            "camera": self.camera,
            "mean": np.round(self.mean.astype(float), 1).tolist(),
            "spread": np.round(self.spread.astype(float), 1).tolist(),
            "detail": self.detail,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any], where: str) -> UsualView:
        """Inverse of `as_dict`. Raises EpisodeDataError naming the key."""
        camera = read_text(data["camera"], f"{where}, camera")
        mean = read_array(data["mean"], f"{where}, {camera}, mean", (None, None, 3))
        spread = read_array(data["spread"], f"{where}, {camera}, spread", mean.shape[:2])
        detail = float(read_array([data["detail"]], f"{where}, {camera}, detail", (1,))[0])
        return UsualView(camera=camera, mean=mean, spread=spread, detail=detail)


def view_of(camera: str, pictures: Sequence[Array]) -> UsualView:
    """From first pictures (H, W, 3) uint8 of ordinary episodes."""
    small = np.stack([thumbnail(picture) for picture in pictures]).astype(np.float32)
    spread = small.std(0).mean(-1)
    detail = float(np.mean([np.log(_detail(picture)) for picture in small]))
    return UsualView(camera=camera, mean=small.mean(0), spread=spread, detail=detail)


def thumbnail(picture: Array) -> Array:
    """(H, W, 3) uint8 -> (h, w, 3) uint8 of at most 64 pixels a side, in its proportions."""
    height, width = picture.shape[:2]
    share = SIDE / max(height, width)
    if share >= 1:
        return picture
    return resize_with_pad(picture, max(1, round(height * share)), max(1, round(width * share)))


def displacement(picture: Array, usual: Array) -> tuple[float, float]:
    """Rows and columns, in pixels, by which (h, w, 3) has to be read further to lie on `usual` (h, w, 3)."""
    first, second = _outlines(picture), _outlines(usual)
    match = np.fft.fftshift(np.fft.ifft2(np.fft.fft2(first) * np.conj(np.fft.fft2(second))).real)
    middle = [n // 2 for n in match.shape]
    reach = [min(_REACH, n - 1, m) for n, m in zip(middle, middle, strict=True)]
    near = match[middle[0] - reach[0] : middle[0] + reach[0] + 1, middle[1] - reach[1] : middle[1] + reach[1] + 1]
    row, column = (int(i) for i in np.unravel_index(int(near.argmax()), near.shape))
    return _peak(near[:, column], row) - reach[0], _peak(near[row], column) - reach[1]


def shifted(picture: Array, down: float, across: float) -> Array:
    """(h, w, 3) float64 read `down` rows and `across` columns further."""
    rows, columns = places(picture.shape[:2], np.eye(3))
    return sample(picture, rows + down, columns + across)


def inside(size: tuple[int, ...], down: float, across: float) -> Array:
    """(H, W) bool: where a picture (H, W) that is read further by so much still shows something."""
    rows, columns = places(size, np.eye(3))
    rows, columns = rows + down, columns + across
    return (rows >= 0) & (rows <= size[0] - 1) & (columns >= 0) & (columns <= size[1] - 1)


def _outlines(picture: Array) -> Array:
    """(h, w) standardised root of the gradient's size: where edges are, whatever the colours on either side."""
    grey = picture.astype(np.float64).mean(-1)
    edges = np.zeros((2, *grey.shape))
    edges[0, 1:-1], edges[1, :, 1:-1] = grey[2:] - grey[:-2], grey[:, 2:] - grey[:, :-2]
    strength = np.sqrt(np.hypot(*edges))
    centred = strength - strength.mean()
    result: Array = centred / max(float(centred.std()), 1e-9)
    return result


def _peak(values: Array, at: int) -> float:
    """Place of the top of the parabola through a highest value and its neighbours."""
    if not 0 < at < len(values) - 1:
        return float(at)
    before, top, after = values[at - 1 : at + 2]
    bend = before - 2 * top + after
    return at + float(0.5 * (before - after) / bend) if bend else float(at)


def _detail(picture: Array) -> float:
    """Median size of the second difference against the spread of the whole: what noise adds and blur takes away."""
    grey = picture.astype(np.float64).mean(-1)
    fine = np.abs(4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:])
    return float(fine.mean() / max(float(grey.std()), 1e-6) + 1e-6)


__all__ = ["Distance", "UsualView", "displacement", "inside", "shifted", "thumbnail", "to_bytes", "view_of"]
