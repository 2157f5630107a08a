"""What is not a finite number counts as missing: turned into NaN here, before any statistic and any step.

A 0/0 in somebody's logger, a hidden entry beyond float16 (largest 65,504) and a value nobody wrote are the same thing: no
observation. It never becomes 0 or an extreme; it counts as the usual value of that column.
"""

from __future__ import annotations

import warnings

import numpy as np

from failsight.core.types import Array


def present(values: Array) -> Array:
    """The values (...) with NaN for everything that is not finite; the same array when there is nothing to mark."""
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.asarray(np.nan, values.dtype))


def usual_values(values: Array) -> Array:
    """(C,) mean of the finite entries of every column of (N, C), 0 for a column without one; float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column that is missing throughout has no mean
        mean = np.nanmean(present(values), axis=0, dtype=np.float64)
    return np.asarray(np.nan_to_num(mean))


def filled(values: Array, usual: Array) -> Array:
    """(..., C) float32 with the usual value (C,) wherever something is missing."""
    raw = np.asarray(values, np.float32)
    finite = np.isfinite(raw)
    return raw if finite.all() else np.where(finite, raw, usual.astype(np.float32))
