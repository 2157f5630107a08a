"""One discrete hazard gives p_fail and time to failure, so the two can never contradict each other.

The future is cut into bins of control steps. h_k is the probability that the episode is lost in bin k if it was not
lost before; what survives all bins succeeds:

    p_fail = 1 - prod_k (1 - h_k)        time to failure = sum_k mid_k P(lost in k) / p_fail

Reference: Gensheimer and Narasimhan 2019, a scalable discrete-time survival model, https://doi.org/10.7717/peerj.6257
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from failsight.core.types import Array

EDGES = (0, 5, 10, 20, 40, 80)
"""Bins [0, 5), [5, 10), ..., [80, inf) control steps ahead."""
BINS = len(EDGES)
MIDDLES = np.array([2.5, 7.5, 15.0, 30.0, 60.0, 110.0], np.float32)
SOON = 3
"""The first bins, [0, 20) control steps: one second at 20 Hz."""
SURVIVES = BINS
"""Label of a step of an episode that succeeds."""
UNKNOWN = -1
"""Label of a step of an episode that fails nobody knows when."""


class Survival(NamedTuple):
    """What hazards come to."""

    p_fail: float
    time_to_failure: float


def bin_labels(time_to_failure: Array) -> Array:
    """Bin of the loss for every step, (T,) steps ahead (+inf: never, NaN: not known) -> (T,) int64.

    >>> bin_labels(np.array([0.0, 7.0, np.inf])).tolist()
    [0, 1, 6]
    """
    bins = np.searchsorted(np.array(EDGES), time_to_failure, side="right") - 1
    return np.where(np.isnan(time_to_failure), UNKNOWN, np.where(np.isfinite(time_to_failure), bins, SURVIVES))


def survival(hazard: Array) -> Survival:
    """p_fail and expected time to failure (NaN when p_fail is 0) of hazards (BINS,)."""
    alive = np.cumprod(1 - hazard)
    lost = hazard * np.concatenate([[1.0], alive[:-1]])
    p_fail = float(lost.sum())
    return Survival(p_fail, float(lost @ MIDDLES / p_fail) if p_fail > 0 else float("nan"))
