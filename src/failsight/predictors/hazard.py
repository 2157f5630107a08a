"""One discrete hazard gives p_fail and time to failure, so the two can never contradict each other.

The future is cut into bins of control steps, which follow the robot's rate and the tasks' horizon. h_k is the probability that the episode is lost in bin k if it was not
lost before; what survives all bins succeeds:

    p_fail = 1 - prod_k (1 - h_k)        time to failure = sum_k mid_k P(lost in k) / p_fail

Reference: Gensheimer and Narasimhan 2019, a scalable discrete-time survival model, https://doi.org/10.7717/peerj.6257
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from failsight.core.timing import REFERENCE_HORIZON, REFERENCE_HZ
from failsight.core.types import Array

EDGES = (0, 5, 10, 20, 40, 80, 160)
"""Bins [0, 5), [5, 10), ..., [80, inf) control steps ahead, and the horizon, at 20 Hz and a horizon of 160 steps."""
BINS = len(EDGES) - 1
SOON = 3
"""The first bins: one second."""
SURVIVES = BINS
"""Label of a step of an episode that succeeds."""
UNKNOWN = -1
"""Label of a step of an episode that fails nobody knows when."""


def edges_for(rate_hz: float, horizon: int) -> tuple[int, ...]:
    """Edges at a quarter, a half and one second, then two in equal ratio up to the horizon (`EDGES` at 20 Hz and 160).

    A rate or horizon of 0 is not known and taken from there. A task of under two seconds has its "second" at half of it.

    >>> edges_for(20, 160), edges_for(80, 200)
    ((0, 5, 10, 20, 40, 80, 160), (0, 20, 40, 80, 109, 147, 200))
    """
    end = max(horizon or REFERENCE_HORIZON, BINS)
    second = min(rate_hz or REFERENCE_HZ, end / 2)
    ratio = (end / second) ** (1 / 3)
    found = [0]
    for place in (second / 4, second / 2, second, second * ratio, second * ratio**2):
        found.append(max(found[-1] + 1, math.floor(place + 0.5)))
    return (*found, max(end, found[-1] + 1))


def middles_of(edges: Sequence[int]) -> Array:
    """(BINS,) the step that stands for each bin: its middle; of the last one that of its first seven eighths."""
    ends = [*edges[1:BINS], max(0.875 * edges[BINS], edges[BINS - 1])]
    return np.array([(low + high) / 2 for low, high in zip(edges[:BINS], ends, strict=True)], np.float32)


def bin_labels(time_to_failure: Array, edges: Sequence[int] = EDGES) -> Array:
    """Bin of the loss for every step, (T,) steps ahead (+inf: never, NaN: not known) -> (T,) int64.

    >>> bin_labels(np.array([0.0, 7.0, np.inf])).tolist()
    [0, 1, 6]
    """
    bins = np.searchsorted(np.array(edges[:BINS]), time_to_failure, side="right") - 1
    return np.where(np.isnan(time_to_failure), UNKNOWN, np.where(np.isfinite(time_to_failure), bins, SURVIVES))
