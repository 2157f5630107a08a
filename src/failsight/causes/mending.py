"""Lenses from one first picture: back in place, and back in its usual colours.

Colours: a gain and an offset per channel undo a light, and a palette undoes new colours of single surfaces (a table cloth)
without touching what stands on them. Which of them is taken, the picture says itself: the one after which the parts
that never change look most like they usually do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import least_squares

from failsight.causes.views import UsualView, displacement, thumbnail
from failsight.core.lens import Lens, places, sample, table_colours
from failsight.core.types import Array

_SURFACES = 10
"""Colours a palette tells apart."""
_SOFT = 8.0
"""Grey levels over which one surface's change goes over into another's."""
_ROUNDS = 12
_FREE = ((2, 5), (0, 4, 2, 5), tuple(range(8)))
"""Entries of the (3, 3) matrix that are let go one after another: shift, size, everything."""


def recolour(picture: Array, view: UsualView, lens: Lens | None = None) -> Lens:
    """The lens that gives a first picture (H, W, 3) uint8 its usual colours, after what `lens` does already."""
    base = lens or Lens()
    small = base(thumbnail(picture))
    gain, offset = _levels(small, view)
    lit = Lens(move=base.move, gain=gain, offset=offset)
    candidates = [base, lit]
    for start in (base, lit):
        change = _palette(start(thumbnail(picture)), view)
        candidates.append(Lens(move=base.move, gain=start.gain, offset=start.offset, change=change))
    return min(candidates, key=lambda one: _unlike(one(thumbnail(picture)), view))


def put_back(picture: Array, view: UsualView) -> Lens:
    """The lens that puts a first picture (H, W, 3) uint8 of a moved camera back in place."""
    small = thumbnail(picture)
    height, width = small.shape[:2]
    down, across = displacement(small, view.mean)
    matrix = np.eye(3)
    matrix[1, 2], matrix[0, 2] = 2 * down / (height - 1), 2 * across / (width - 1)
    values = matrix.ravel()
    for free in _FREE:
        chosen = list(free)
        found = least_squares(
            _misplaced(small, view, values, chosen), values[chosen], loss="soft_l1", diff_step=1e-2, max_nfev=25
        )
        values[chosen] = found.x
    return Lens(move=values.reshape(3, 3))


def _misplaced(small: Array, view: UsualView, values: Array, chosen: list[int]) -> Callable[[Array], Array]:
    """What is left to lay a thumbnail (h, w, 3) on the usual one: (h * w * 3,) by the chosen entries of the matrix."""
    wanted = np.array(view.mean, np.float64)

    def apart(free: Array) -> Array:
        trial = values.copy()
        trial[chosen] = free
        rows, columns = places(small.shape[:2], trial.reshape(3, 3))
        seen = (rows >= 0) & (rows <= small.shape[0] - 1) & (columns >= 0) & (columns <= small.shape[1] - 1)
        left = (sample(small, rows, columns) - wanted) / 20
        result: Array = np.where((seen & view.settled)[..., None], left, 0).ravel()
        return result

    return apart


def _levels(small: Array, view: UsualView) -> tuple[Array, Array]:
    """(3,) gain and (3,) offset per channel that bring the settled pixels nearest to the usual ones, by least absolute error."""
    gain, offset = np.ones(3), np.zeros(3)
    for channel in range(3):
        seen = small[..., channel][view.settled].astype(np.float64)
        usual = view.mean[..., channel][view.settled].astype(np.float64)
        sound = (seen > 2) & (seen < 253)
        if sound.sum() < 50 or seen[sound].std() < 3:
            offset[channel] = float(np.median(usual - seen)) if len(seen) else 0.0
            continue
        gain[channel], offset[channel] = _line(seen[sound], usual[sound])
    return gain, offset


def _line(x: Array, y: Array) -> tuple[float, float]:
    """Slope and intercept of the line of least absolute error through (n,) points, by re-weighting."""
    weight, columns = np.ones(len(x)), np.stack([x, np.ones(len(x))], 1)
    slope, intercept = 1.0, 0.0
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)
        slope, intercept = np.linalg.lstsq(columns * root[:, None], y * root, rcond=None)[0]
        weight = 1 / np.maximum(np.abs(y - slope * x - intercept), 2.0)
    return float(slope), float(intercept)


def _palette(small: Array, view: UsualView) -> Array:
    """(32, 32, 32, 3) int16 what has to be added to every colour of a thumbnail (h, w, 3)."""
    colours = small.reshape(-1, 3).astype(np.float64)
    usual, settled = view.mean.reshape(-1, 3).astype(np.float64), view.settled.ravel()
    centres, member = _surfaces(colours)
    change = np.zeros_like(centres)
    for surface in range(len(centres)):
        its = member == surface
        known = its & settled
        if known.sum() >= max(4, 0.3 * its.sum()):
            change[surface] = np.median(usual[known] - colours[known], 0)
    every = table_colours()
    far = np.stack([((every - centre) ** 2).sum(1) for centre in centres], 1)
    weight = np.exp(-(far - far.min(1, keepdims=True)) / (2 * _SOFT**2))
    mixed = weight @ change / weight.sum(1, keepdims=True)
    result: Array = np.rint(mixed).astype(np.int16).reshape(32, 32, 32, 3)
    return result


def _surfaces(colours: Array) -> tuple[Array, Array]:
    """(K, 3) centres of the colours (n, 3) and (n,) which one each belongs to; first centres as far apart as can be."""
    centres = [np.median(colours, 0)]
    for _ in range(_SURFACES - 1):
        nearest = np.min([((colours - centre) ** 2).sum(1) for centre in centres], 0)
        centres.append(colours[int(nearest.argmax())])
    placed = np.array(centres)
    for _ in range(_ROUNDS):
        member = np.argmin([((colours - centre) ** 2).sum(1) for centre in placed], 0)
        for surface in range(len(placed)):
            if (member == surface).any():
                placed[surface] = colours[member == surface].mean(0)
    return placed, np.argmin([((colours - centre) ** 2).sum(1) for centre in placed], 0)


def _unlike(small: Array, view: UsualView) -> float:
    """How far the settled pixels of a thumbnail are from the usual ones: median and mean of the error, cut at 30."""
    error = np.abs(small - view.mean)[view.settled]
    return float(np.median(error) + np.minimum(error, 30).mean()) if error.size else 0.0
