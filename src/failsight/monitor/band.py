"""A functional band as an option: the alarm judges how far the evidence lies above what is usual at its step.

    deviation(t) = (evidence(t) - mean(t)) / spread(t)        alarm when deviation >= width

Mean and spread per step come from successful episodes that are *not* used for the width, and the width is the (n+1)-rank
of the largest deviation of the others: simultaneous over time and valid for every n. Published bands leave out the
rank (SAFE, FAIL-Detect), use one set for both, or take the deviation with the wrong sign (FIPER).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_number
from failsight.core.types import Array

_FLOOR = 0.25
"""Least spread at a step, as a share of the spread over all steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Usual evidence per step of successes; steps beyond the last use the last."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    def deviation(self, evidence: float, step: int) -> float:
        """Standardised distance above the usual evidence at `step`."""
        at = min(step, len(self.mean) - 1)
        return (evidence - self.mean[at]) / self.spread[at]

    def apply(self, evidence: Array) -> Array:
        """(T,) deviations of a whole episode."""
        return np.array([self.deviation(float(value), t) for t, value in enumerate(evidence)])

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"mean": list(self.mean), "spread": list(self.spread)}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Band:
        """Inverse of `as_dict`. Raises EpisodeDataError when it is empty, ragged, or its spread not above 0."""
        mean = tuple(read_number(value, "band, mean") for value in data["mean"])
        spread = tuple(read_number(value, "band, spread", math.ulp(0.0)) for value in data["spread"])
        if not mean or len(mean) != len(spread):
            raise EpisodeDataError(f"band: {len(mean)} means and {len(spread)} spreads; expected as many, at least 1.")
        return Band(mean=mean, spread=spread)


def fit_band(curves: Sequence[Array]) -> Band:
    """Mean and spread per step over `curves` (T,) of successes still running, held once fewer than three are left."""
    overall = max(float(np.concatenate(curves).std()), 1e-9)
    means, spreads = list[float](), list[float]()
    for t in range(max(map(len, curves))):
        running = np.array([c[t] for c in curves if len(c) > t])
        if len(running) < 3 and means:
            break
        means.append(float(running.mean()))
        spreads.append(max(float(running.std()), _FLOOR * overall))
    return Band(mean=tuple(means), spread=tuple(spreads))
