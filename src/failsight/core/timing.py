"""Windows of time in control steps: a second is 20 steps of a tabletop arm, 80 of another, 2.5 of a mobile base.

Every number of steps that stands for a time was chosen at 20 Hz and for tasks of 160 steps; here it follows the rate of
the robot and the horizon of its tasks. Where a log does not say its rate, it is taken to be 20 Hz.
"""

from __future__ import annotations

import math

REFERENCE_HZ = 20.0
REFERENCE_HORIZON = 160


def steps_in(seconds: float, rate_hz: float, least: int = 1) -> int:
    """Whole steps in a time, halves up, at least `least`; a rate of 0 (not known) is 20 Hz.

    >>> [steps_in(1.0, rate) for rate in (20, 80, 2.5, 0)]
    [20, 80, 3, 20]
    """
    return max(least, math.floor(seconds * (rate_hz or REFERENCE_HZ) + 0.5))
