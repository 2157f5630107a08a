"""Pictures of another size, brought to a camera's as openpi's client does it, to the bit.

The picture keeps its proportions, is scaled bilinearly until it just fits, and stands in the middle of black bars.
Scaling down averages over all pixels that fall into one (the triangle filter widens with the factor), in two passes,
columns first, each rounded to bytes: the arithmetic of Pillow's `BILINEAR`, which openpi calls.
"""

from __future__ import annotations

import numpy as np

from failsight.core.types import Array

_ONE = 2.0**22
"""Weights are whole multiples of 1/_ONE, so that the sums below are exact in float64."""


def resize_with_pad(picture: Array, height: int, width: int) -> Array:
    """(h, w, 3) uint8 -> (height, width, 3) uint8; the picture itself when it has that size already.

    >>> resize_with_pad(np.full((2, 4, 3), 200, np.uint8), 4, 4)[:, 0, 0].tolist()
    [0, 200, 200, 0]
    """
    old_height, old_width = picture.shape[:2]
    if (old_height, old_width) == (height, width):
        return picture
    ratio = max(old_width / width, old_height / height)
    inner_height, inner_width = max(1, int(old_height / ratio)), max(1, int(old_width / ratio))
    across = _resample(np.moveaxis(picture, 1, 0), inner_width)
    inner = _resample(np.moveaxis(across, 1, 0), inner_height)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    padded = np.zeros((height, width, 3), np.uint8)
    padded[top : top + inner_height, left : left + inner_width] = inner
    return padded


def _resample(rows: Array, size: int) -> Array:
    """(n, ...) uint8 -> (size, ...) uint8."""
    first, weights = _weights(len(rows), size)
    flat = rows.reshape(len(rows), -1)
    sums = np.zeros((size, flat.shape[1]))
    for tap in range(weights.shape[1]):
        sums += weights[:, tap, None] * flat[np.minimum(first + tap, len(rows) - 1)]
    whole = np.floor((sums + _ONE / 2) / _ONE)
    resampled: Array = np.clip(whole, 0, 255).astype(np.uint8).reshape(size, *rows.shape[1:])
    return resampled


def _weights(old: int, new: int) -> tuple[Array, Array]:
    """(new,) first old pixel of each new one, (new, taps) how much of it and the following goes in, in units of 1/_ONE."""
    scale = old / new
    reach = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum(np.trunc(centre - reach + 0.5), 0).astype(np.int64)
    end = np.minimum(np.trunc(centre + reach + 0.5), old).astype(np.int64)
    at = first[:, None] + np.arange((end - first).max())
    triangle = np.maximum(0.0, 1 - np.abs((at - centre[:, None] + 0.5) / reach))
    triangle[at >= end[:, None]] = 0.0
    weights: Array = np.trunc(triangle / triangle.sum(1, keepdims=True) * _ONE + 0.5)
    return first, weights
