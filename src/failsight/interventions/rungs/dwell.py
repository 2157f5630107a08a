"""How long a rung that goes on lasts: while the trigger is on, and a while after it."""

from __future__ import annotations

from failsight.core.contracts import Context
from failsight.core.timing import steps_in
from failsight.core.types import Verdict


class Dwell:
    """While the trigger is on and for `dwell_s` seconds after it."""

    def __init__(self, dwell_s: float) -> None:
        self._dwell_s = dwell_s
        self.reset()

    def reset(self) -> None:
        """It has not begun."""
        self._left = 0

    def goes_on(self, verdict: Verdict, context: Context) -> bool:
        """Whether it lasts at this tick; asked once per tick."""
        steps = steps_in(self._dwell_s, context.action_spec.rate_hz)
        self._left = steps if verdict.trigger else max(0, self._left - 1)
        return self._left > 0
