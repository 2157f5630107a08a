"""Standardising a signal by what is usual at the same step: mean and spread among training episodes still running.

Both are smoothed over neighbouring steps, and held once few episodes are left; the spread has a floor, a share of the
spread over all steps. On known tasks the task's own mean is removed as well, shrunken towards none.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from failsight.core.types import Array

_FLOOR = 0.25
_SHRINK_TASK = 3.0


class StepScale(NamedTuple):
    """Mean and 1 / spread per step."""

    mean: Array
    """(T, S)."""
    scale: Array
    """(T, S); 0 for a signal that never varies."""

    def apply(self, values: Array, step: int) -> Array:
        """(..., S) at `step` -> standardised; steps beyond the last use the last."""
        row = min(step, len(self.mean) - 1)
        return np.asarray((values - self.mean[row]) * self.scale[row])


def fit_step_scale(values: Array, smooth: int) -> StepScale:
    """From padded episodes (N, T, S), NaN where nothing was seen; `smooth` steps are pooled (odd)."""
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0)
    count, total, square = (_pooled(part.sum(0), smooth) for part in (present, filled, filled**2))
    mean = total / np.maximum(count, 1)
    spread = np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column that is NaN throughout has no spread
        overall = np.nan_to_num(np.nanstd(values, axis=(0, 1)))
    spread = np.maximum(spread, _FLOOR * overall)
    running = np.isfinite(values).any(2).sum(0)
    last = max(0, int((running >= enough(len(values))).sum()) - 1)
    mean, spread = mean[: last + 1], spread[: last + 1]
    return StepScale(mean, np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-9))


def enough(episodes: int) -> int:
    """How many episodes must still run for their mean to be trusted: 30, or a quarter of a small set, at least 3."""
    return max(3, min(30, episodes // 4))


def _pooled(values: Array, smooth: int) -> Array:
    """Moving sum along axis 0, over `smooth` rows centred on each."""
    half = smooth // 2
    padded = np.concatenate([np.zeros((half + 1, *values.shape[1:])), values, np.zeros((half, *values.shape[1:]))])
    sums = padded.cumsum(0)
    return np.asarray(sums[2 * half + 1 :] - sums[: len(values)])


def task_offsets(z: Array, tasks: Array) -> tuple[dict[str, Array], Array]:
    """Per task, its mean standardised value per step (T, S), shrunken by 3 episodes; and for every training episode the
    offset it would get without itself (N, T, S), so that it does not explain itself away.
    """
    offsets, own = {}, np.zeros_like(z)
    present = np.isfinite(z)
    filled = np.where(present, z, 0.0)
    for task in np.unique(tasks):
        rows = tasks == task
        total, count = filled[rows].sum(0), present[rows].sum(0)
        offsets[str(task)] = total / (count + _SHRINK_TASK)
        own[rows] = (total - filled[rows]) / (count - present[rows] + _SHRINK_TASK)
    return offsets, own
