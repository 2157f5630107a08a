"""Small array transforms shared by the detectors on logs."""

from __future__ import annotations

import numpy as np

from failsight.core.types import Array
from failsight.predictors.missing import present


def pad(parts: list[Array]) -> Array:
    """Sequences (T_i, S) -> (N, T, S) float64, NaN after the end of an episode."""
    result = np.full((len(parts), max(map(len, parts)), parts[0].shape[1]), np.nan)
    for row, part in zip(result, parts, strict=True):
        row[: len(part)] = part
    return result


def log_positive(signals: Array, log: Array) -> Array:
    """log(x + 1e-4) of the columns marked in `log` (S,), the others unchanged, NaN where nothing finite was seen;
    (..., S) float64.
    """
    values = np.array(present(signals), np.float64)
    values[..., log] = np.log(np.maximum(values[..., log], 0.0) + 1e-4)
    return values


def positive_columns(raw: Array) -> Array:
    """(S,) bool: columns of padded raw signals (N, T, S) to take the logarithm of.

    Never negative and not counts: norms, errors, jerks, curvatures, speeds.
    """
    flat = raw.reshape(-1, raw.shape[-1])
    mask = np.zeros(flat.shape[1], bool)
    for i, column in enumerate(flat.T):
        seen = column[np.isfinite(column)]
        mask[i] = len(seen) > 0 and seen.min() >= 0 and (seen != np.round(seen)).any()
    return mask


def whitening(residual: Array, components: int) -> Array:
    """(C, D) principal directions divided by their standard deviation; sign fixed so that fits are repeatable."""
    covariance = residual.T @ residual / len(residual)
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    keep = values[::-1][: min(components, residual.shape[1])] > 1e-9
    top = vectors[:, ::-1][:, : len(keep)][:, keep] / np.sqrt(values[::-1][: len(keep)][keep])
    top *= np.sign(top[np.abs(top).argmax(0), np.arange(top.shape[1])])
    return np.ascontiguousarray(top.T, np.float32)
