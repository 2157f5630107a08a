"""Which frames a policy sees: the one rule, for training and for running.

At a control step t a policy sees the frames t - (W-1) * stride, ..., t - stride, t.
"""

from __future__ import annotations


def window_frames(t: int, window: int, stride: int) -> tuple[list[int], list[bool]]:
    """Frames seen at t, oldest first, and which of them lie before the start.

    >>> window_frames(3, window=3, stride=2)
    ([0, 1, 3], [True, False, False])
    """
    wanted = [t - i * stride for i in range(window - 1, -1, -1)]
    return [max(0, i) for i in wanted], [i < 0 for i in wanted]
