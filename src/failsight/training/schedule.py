"""Learning-rate schedules with warm-up."""

from __future__ import annotations

import math
from typing import get_args

from failsight.core.errors import UnknownNameError
from failsight.training.options import Schedule


def rate(schedule: Schedule, step: int, warmup: int, steps: int) -> float:
    """Share of the full learning rate at a step: linear warm-up, then flat, half a cosine, or 1, 0.1, 0.01.

    >>> [round(rate("step", s, 0, 9), 2) for s in (0, 3, 5, 8)]
    [1.0, 1.0, 0.1, 0.01]

    Raises UnknownNameError for another schedule.
    """
    if schedule not in get_args(Schedule):
        raise UnknownNameError("schedule", schedule, get_args(Schedule))
    if step < warmup:
        return (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, steps - warmup))
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return 1.0 if share < 0.5 else 0.1 if share < 0.8 else 0.01
    return 0.5 * (1 + math.cos(math.pi * share)) + 1e-3
