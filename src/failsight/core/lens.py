"""Pictures made familiar again before a policy sees them: put back in place, then given their old colours.

A `Lens` belongs to one camera and one episode. It is found once, from the first picture (`failsight.causes.mending`),
and then changes every picture of that camera in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from failsight.core.types import Array, Lenses, Observation

PREFIX = "observation.images."
_LEVELS = 32
"""Steps per channel in which colours are told apart."""


def no_change() -> Array:
    """(32, 32, 32, 3) int16 zeros: every colour stays."""
    return np.zeros((_LEVELS, _LEVELS, _LEVELS, 3), np.int16)


def colour_index(picture: Array) -> tuple[Array, Array, Array]:
    """Three (...) arrays that look the colours of a (..., 3) uint8 picture up in a table (32, 32, 32, n)."""
    steps = picture >> 3
    return steps[..., 0], steps[..., 1], steps[..., 2]


def table_colours() -> Array:
    """(32 * 32 * 32, 3) float64 the middle colour of every entry of such a table, first channel slowest."""
    steps = np.arange(_LEVELS) * 8 + 3.5
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """What is done to every picture of one camera: first `move`, then `gain` and `offset`, then `change`."""

    move: Array = field(default_factory=lambda: np.eye(3))
    """(3, 3) where in the raw picture a point of the mended one lies: homogeneous, the picture reaches from -1 to 1."""
    gain: Array = field(default_factory=lambda: np.ones(3))
    """(3,) per channel."""
    offset: Array = field(default_factory=lambda: np.zeros(3))
    """(3,) grey levels per channel."""
    change: Array = field(default_factory=no_change)
    """(32, 32, 32, 3) int16 grey levels that are added to a colour, by the colour it has after gain and offset."""

    def __call__(self, picture: Array) -> Array:
        """(H, W, 3) uint8 -> (H, W, 3) uint8; nothing changes where there is nothing to change."""
        if not np.array_equal(self.move, np.eye(3)):
            picture = move(picture, self.move)
        if (self.gain != 1).any() or (self.offset != 0).any():
            picture = to_bytes(picture * self.gain + self.offset)
        if self.change.any():
            picture = np.clip(picture + self.change[colour_index(picture)], 0, 255).astype(np.uint8)
        return picture


def look_through(lenses: Lenses, observation: Observation) -> Observation:
    """The observation with pictures as their lenses show them; cameras it has no picture of are left out."""
    keys = {PREFIX + camera: lens for camera, lens in lenses.items()}
    return {name: keys[name](value) if name in keys else value for name, value in observation.items()}


def to_bytes(picture: Array) -> Array:
    """(...) uint8, rounded and cut to 0 to 255."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def move(picture: Array, matrix: Array) -> Array:
    """(H, W, 3) uint8 whose point p shows what lies at `matrix` (3, 3) times p; beyond the edge the edge goes on."""
    rows, columns = places(picture.shape[:2], matrix)
    return to_bytes(sample(picture, rows, columns))


def places(size: tuple[int, ...], matrix: Array) -> tuple[Array, Array]:
    """(H, W) rows and (H, W) columns, in pixels, where the points of a picture of `size` lie under `matrix` (3, 3)."""
    height, width = size
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    moved = matrix @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    across, down = moved[:2] / np.maximum(moved[2], 1e-6)
    return ((down + 1) / 2 * (height - 1)).reshape(size), ((across + 1) / 2 * (width - 1)).reshape(size)


def sample(picture: Array, rows: Array, columns: Array) -> Array:
    """(..., 3) float64 bilinear values of (H, W, 3) at `rows` and `columns` (...), the nearest pixel beyond the edge."""
    height, width = picture.shape[:2]
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    top, left = rows.astype(np.int64), columns.astype(np.int64)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    upper = picture[top, left] * (1 - across) + picture[top, right] * across
    lower = picture[bottom, left] * (1 - across) + picture[bottom, right] * across
    result: Array = upper * (1 - down) + lower * down
    return result
