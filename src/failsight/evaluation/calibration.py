"""How far displayed probabilities can be believed: expected calibration error and the Brier score with its parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from failsight.core.rng import keyed_rng
from failsight.core.types import Array
from failsight.evaluation.intervals import Estimate, bootstrap

_BINS = 10


def calibration_error(p: Array, failed: Array, bins: int = _BINS) -> float:
    """Mean gap between `p` (N,) and the failure rate, `failed` (N,) bool, over bins of equal mass.

    NaN with fewer episodes than bins.
    """
    if len(p) < bins:
        return float("nan")
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    return float(sum(abs(p[part].mean() - failed[part].mean()) * len(part) for part in parts) / len(p))


def perfect_reading(p: Array, draws: int = 200, bins: int = _BINS) -> float:
    """What the calibration error reads for outcomes drawn from `p` (N,) itself: no model can be told from it below."""
    rng = keyed_rng("perfect", len(p))
    return float(np.mean([calibration_error(p, rng.random(len(p)) < p, bins) for _ in range(draws)]))


def brier_parts(p: Array, failed: Array, bins: int = _BINS) -> dict[str, float]:
    """Brier score of p (N,) for `failed` (N,) bool = reliability - resolution + uncertainty (+ what binning hides).

    Murphy 1973.
    """
    y = failed.astype(float)
    base = y.mean()
    parts = np.array_split(np.argsort(p, kind="stable"), min(bins, len(p)))
    reliability = sum(len(part) * (p[part].mean() - y[part].mean()) ** 2 for part in parts) / len(p)
    resolution = sum(len(part) * (y[part].mean() - base) ** 2 for part in parts) / len(p)
    return {
        "brier": float(((p - y) ** 2).mean()),
        "reliability": float(reliability),
        "resolution": float(resolution),
        "uncertainty": float(base * (1 - base)),
    }


def calibration_table(p: Array, failed: Array, strata: list[str], key: str) -> dict[str, Any]:
    """Calibration error with its interval, what a perfect model would read, and the Brier parts.

    Args: p: (N,), NaN is left out; failed: (N,) bool; strata: N labels for the bootstrap; key: its random key.
    """
    known = np.isfinite(p)
    p, failed = p[known], failed[known]
    if len(p) < _BINS:
        nothing = Estimate(value=float("nan"), low=float("nan"), high=float("nan"), n=len(p))
        return {"ece": nothing.as_dict(), "perfect": None}
    labels = [s for s, k in zip(strata, known, strict=True) if k]
    ece = bootstrap(lambda rows: calibration_error(p[rows], failed[rows]), labels, ("ece", key), 300)
    return {"ece": ece.as_dict(), "perfect": perfect_reading(p), **brier_parts(p, failed)}
