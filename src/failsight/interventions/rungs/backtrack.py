"""Going back the way a robot came, command by command."""

from __future__ import annotations

import numpy as np

from failsight.core.contracts import Context
from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.timing import steps_in
from failsight.core.types import CONTINUE, Array, Decision, DecisionKind, Verdict
from failsight.interventions.motion import Motion, require_motion


class Backtrack:
    """At the trigger the commands of the last `back_s` seconds are undone, last one first; then the policy plans afresh.

    A motion is undone by its opposite, a target by the one before it; grippers stay as they are. It knows nothing of
    what stands in the way meanwhile, and of a gripper that opens: a Cartesian arm has `Retry`. At most `attempts` per
    episode, `cooldown_s` seconds apart.
    """

    def __init__(self, back_s: float = 1.0, attempts: int = 1, cooldown_s: float = 1.25) -> None:
        self._back_s, self._attempts, self._cooldown_s = back_s, attempts, cooldown_s
        self.reset()

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """It undoes motions and targets. Raises SpecMismatchError for a robot of torques, which nothing undoes."""
        require_motion("Backtracking", actions)
        torques = [d.name for d in actions.dimensions if d.kind == "torque"]
        if torques:
            raise SpecMismatchError(
                f"Backtracking undoes commands, and nothing undoes the torque {', '.join(torques)}."
            )

    def reset(self) -> None:
        """No attempt made yet."""
        self._steps: list[Array] = []
        self._wait, self._used = 0, 0

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Start at the trigger and see it through."""
        self._wait -= 1
        if not self._steps and verdict.trigger and self._used < self._attempts and self._wait <= 0:
            self._steps = _undone(context, steps_in(self._back_s, context.action_spec.rate_hz))
            self._used += bool(self._steps)
        if not self._steps:
            return CONTINUE
        action = self._steps.pop(0)
        if not self._steps:
            self._wait = steps_in(self._cooldown_s, context.action_spec.rate_hz)
        return Decision(kind=DecisionKind.BACKTRACK, reason=f"backtrack {self._used}: {verdict.why}", action=action)


def _undone(context: Context, steps: int) -> list[Array]:
    """(A,) commands that undo the last `steps` ones, last one first; none before anything was sent."""
    spec = context.action_spec
    motion, hold = Motion(spec), spec.hold(context.last_action)
    sent = context.sent[-steps - 1 :]
    pairs = [(sent[max(0, i - 1)], command) for i, command in enumerate(sent)][-steps:]
    undone = []
    for before, command in reversed(pairs):
        back = np.where(motion.values, -command, np.where(motion.targets, before, hold))
        undone.append(np.clip(back, spec.low, spec.high).astype(np.float32))
    return undone
