"""Noise on camera images."""

from __future__ import annotations

import numpy as np

from failsight.core.types import Array


def add_pixel_noise(image: Array, deviation: float, rng: np.random.Generator) -> Array:
    """(H, W, 3) uint8 with Gaussian noise of `deviation` grey levels, clipped to 0 and 255."""
    noise = rng.standard_normal(image.shape, dtype=np.float32) * deviation
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)
