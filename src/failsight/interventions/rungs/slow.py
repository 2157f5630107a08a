"""Going slower along the planned path."""

from __future__ import annotations

from failsight.core.contracts import Context
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import CONTINUE, Decision, DecisionKind, Verdict
from failsight.interventions.motion import require_motion
from failsight.interventions.rungs.dwell import Dwell


class Slow:
    """Half speed along the policy's own path while the trigger is on and for `dwell_s` seconds after it.

    Movements are stretched in time; binary dimensions are never scaled.
    """

    def __init__(self, rate: float = 0.5, dwell_s: float = 1.0) -> None:
        self._rate, self._dwell = rate, Dwell(dwell_s)

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """It scales motions and parts the way to targets. Raises SpecMismatchError when the robot has neither."""
        require_motion("Going slower", actions)

    def reset(self) -> None:
        """Full speed."""
        self._dwell.reset()

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Slow down while triggered."""
        if not self._dwell.goes_on(verdict, context):
            return CONTINUE
        return Decision(kind=DecisionKind.SLOW, reason=f"half speed: {verdict.why}", rate=self._rate)
