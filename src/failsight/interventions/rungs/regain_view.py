"""Going where the cameras see the scene, and letting the policy look again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from failsight.core.contracts import Context
from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.timing import steps_in
from failsight.core.types import CONTINUE, Array, Decision, DecisionKind, Verdict

_HEIGHT = "z_m"
_NEAR = 0.012
"""In the unit of the state entry: there."""


class RegainView:
    """At the trigger the robot goes to a look pose, up first, with its grip as it is; then the policy plans afresh.

    It goes there for at most `limit_s` seconds, once per episode. Where the task's object was last seen is not known
    to an intervention: the pose is given, or that of the simulator (`SimEntry.look`).
    """

    def __init__(self, look: Mapping[str, float] | None = None, limit_s: float = 2.0) -> None:
        """Args: look: state entry -> where to be, in the entry's unit; None: the simulator's."""
        self._look, self._limit_s = look, limit_s
        self.reset()

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """Some pose to look from, every entry of which an action moves. Raises SpecMismatchError."""
        look = self._pose(observations)
        moved = {_entry(dimension, observations) for dimension in actions.dimensions}
        lacking = [name for name in look if name not in moved]
        if not look or lacking:
            what = f"no action moves {', '.join(lacking)}" if lacking else "there is no look pose"
            raise SpecMismatchError(
                f"Regaining the view goes to a look pose, and {what}. Name one in the simulator's entry (look), of the "
                f"state entries {', '.join(sorted(name for name in moved if name)) or 'that an action moves (none here)'}."
            )

    def reset(self) -> None:
        """It was not there yet."""
        self._left, self._done = -1, False

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Set out at the trigger and see it through."""
        if self._left < 0 and verdict.trigger and not self._done:
            self._left, self._done = steps_in(self._limit_s, context.action_spec.rate_hz), True
        if self._left <= 0 or self._there(context):
            self._left = -1
            return CONTINUE
        self._left -= 1
        action = self._toward(context)
        return Decision(kind=DecisionKind.REGAIN_VIEW, reason=f"looking again: {verdict.why}", action=action)

    def _pose(self, observations: ObservationSpec) -> Mapping[str, float]:
        return dict(observations.look) if self._look is None else self._look

    def _there(self, context: Context) -> bool:
        pose, names = self._pose(context.observation_spec), context.observation_spec
        return all(abs(goal - context.state[names.index(name)]) < _NEAR for name, goal in pose.items())

    def _toward(self, context: Context) -> Array:
        """(A,) up while it is too low, then all of the way, as fast as the range allows."""
        spec, names, pose = context.action_spec, context.observation_spec, self._pose(context.observation_spec)
        rising = _HEIGHT in pose and pose[_HEIGHT] - context.state[names.index(_HEIGHT)] > _NEAR
        action = spec.hold(context.last_action)
        for i, dimension in enumerate(spec.dimensions):
            name = _entry(dimension, names)
            if name not in pose or (rising and name != _HEIGHT):
                continue
            here = float(context.state[names.index(name)])
            wanted = (pose[name] - here) / dimension.scale if dimension.kind == "delta" else pose[name]
            action[i] = np.clip(wanted, dimension.low, dimension.high)
        return action


def _entry(dimension: Dimension, observations: ObservationSpec) -> str:
    """The state entry that a dimension moves, by name: `x_m` for the delta `dx` in m, `j0` or `j0_rad` for the target
    `j0`; empty: none.
    """
    if dimension.grips or dimension.kind not in ("delta", "absolute"):
        return ""
    name = dimension.name.removeprefix("d") if dimension.kind == "delta" else dimension.name
    return next((entry for entry in (f"{name}_{dimension.unit}", name) if entry in observations.state), "")
