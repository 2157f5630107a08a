"""At the alarm the robot itself goes home, at full speed and knowing where it is."""

from failsight.core.types import CONTINUE, Decision, DecisionKind
from pointworld.sim import STEP_M


class Homewards:
    """Go home by itself at the alarm."""

    def reset(self):
        pass

    def propose(self, verdict, context):
        if not verdict.trigger:
            return CONTINUE
        action = (-context.state / STEP_M).clip(-1, 1)
        return Decision(kind=DecisionKind.BACKTRACK, reason=f"homewards: {verdict.why}", action=action)
