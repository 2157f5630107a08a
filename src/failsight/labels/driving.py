"""Labels of a mobile base from its contacts: it hit something, or it ran out of time.

Onset is the first contact; for a timeout the last step at which it still moved at more than `moving_m_s`, at the latest
one horizon before the end. A dimension is at risk within the horizon before a contact when it carried a share of the
commanded speed. Not known here: whether a wrong turn had already lost the episode.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from failsight.core.contracts import Labels
from failsight.core.specs import ActionSpec
from failsight.core.timing import steps_in
from failsight.core.types import Array, Event

MOVING_M_S = 0.05
SHARE = 0.3
HORIZON_S = 1.2


class DriveLabeler:
    """Turns the events of a drive into labels."""

    name = "events"

    def __init__(self, actions: ActionSpec) -> None:
        self._span = steps_in(HORIZON_S, actions.rate_hz)

    def label(self, task: str, states: Array, actions: Array, events: Sequence[Event], success: bool) -> Labels:
        """Labels of one episode; states (T, S) with the velocities of the base first, actions (T, A)."""
        steps = len(states)
        hits = [event.step for event in events if event.kind == "contact"]
        kind, onset = (
            (None, None) if success else ("collision", hits[0]) if hits else ("timeout", self._stalled(states))
        )
        time = np.full(steps, np.inf)
        if onset is not None:
            time = np.maximum(onset - np.arange(steps), 0).astype(float)
        risk = np.zeros(actions.shape, bool)
        for step in hits:
            at = min(step, steps - 1)
            speed = np.abs(actions[at])
            risk[max(0, at - self._span) : at + 1] |= speed > SHARE * max(float(speed.max()), 1e-6)
        return Labels(success=success, failure_type=kind, onset=onset, time_to_failure=time, dimension=risk)

    def _stalled(self, states: Array) -> int:
        moving = np.flatnonzero(np.hypot(states[:, 0], states[:, 1]) > MOVING_M_S)
        latest = max(0, len(states) - self._span - 1)
        return min(int(moving[-1]) if len(moving) else 0, latest)
