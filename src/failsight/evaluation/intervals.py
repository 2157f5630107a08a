"""Numbers with their uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from failsight.core.rng import keyed_rng
from failsight.core.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure, its 95 % interval and the number of units behind it; NaN when there is no data."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        """JSON form; NaN becomes null."""
        numbers = {k: getattr(self, k) for k in ("value", "low", "high")}
        return {**{k: (float(v) if np.isfinite(v) else None) for k, v in numbers.items()}, "n": self.n}

    def __str__(self) -> str:
        if not np.isfinite(self.value):
            return f"no data (n={self.n})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def proportion(hits: int, n: int) -> Estimate:
    """A share with its exact Clopper-Pearson interval.

    >>> print(proportion(5, 10))
    0.500 [0.187, 0.813] (n=10)
    """
    if n == 0:
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"), n=0)
    interval = stats.binomtest(hits, n).proportion_ci(method="exact")
    return Estimate(value=hits / n, low=float(interval.low), high=float(interval.high), n=n)


def bootstrap(
    statistic: Callable[[Array], float], strata: Sequence[Any], key: tuple[str | int, ...], draws: int = 1000
) -> Estimate:
    """Percentile bootstrap over units, resampled within their stratum.

    Args:
        statistic: function of unit indices (N,), may return NaN.
        strata: stratum of every unit.
        key: random key, so that the interval can be reproduced.
        draws: number of resamples.
    """
    labels = np.array([str(s) for s in strata])
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    rng = keyed_rng("bootstrap", *key)
    values = []
    for _ in range(draws):
        rows = np.concatenate([rng.choice(group, len(group)) for group in groups]) if groups else np.zeros(0, int)
        values.append(statistic(rows))
    kept = np.array([v for v in values if np.isfinite(v)])
    value = statistic(np.arange(len(labels))) if len(labels) else float("nan")
    if len(kept) < draws // 2:
        return Estimate(value=value, low=float("nan"), high=float("nan"), n=len(labels))
    low, high = np.quantile(kept, [0.025, 0.975])
    return Estimate(value=float(value), low=float(low), high=float(high), n=len(labels))


def mean_of_fits(values: Sequence[float]) -> Estimate:
    """Mean share over independent fits with its t interval, within [0, 1]; NaN bounds for fewer than two."""
    kept = np.array([v for v in values if np.isfinite(v)])
    if len(kept) < 2:
        value = float(kept.mean()) if len(kept) else float("nan")
        return Estimate(value=value, low=float("nan"), high=float("nan"), n=len(kept))
    half = float(stats.t.ppf(0.975, len(kept) - 1) * kept.std(ddof=1) / np.sqrt(len(kept)))
    mean = float(kept.mean())
    return Estimate(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half), n=len(kept))


def text_of(estimate: Estimate) -> str:
    """`0.95 [0.86, 0.99]`, for tables."""
    if estimate.value != estimate.value:
        return "–"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
