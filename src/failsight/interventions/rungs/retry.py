"""Backing up along the tool's own path, and trying again."""

from __future__ import annotations

import numpy as np

from failsight.core.contracts import Context
from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.timing import steps_in
from failsight.core.types import CONTINUE, Array, Decision, DecisionKind, Verdict

_APART_S = 0.2
"""Between two points of a robot's own path that it visits on its way back."""


class Retry:
    """Backtrack along the robot's own path, then let the policy try again.

    Hold-aware: with something in the gripper it only rises and keeps its grip; empty, it opens and goes back the way
    of `back_s` seconds, then up to `clear_height_m` (2 cm more when empty), above anything it could hit on the way. At
    most `attempts` per episode, `cooldown_s` seconds apart.
    """

    def __init__(
        self, attempts: int = 1, back_s: float = 1.5, cooldown_s: float = 1.25, clear_height_m: float = 0.16
    ) -> None:
        self._attempts, self._back_s, self._cooldown_s = attempts, back_s, cooldown_s
        self._clear_height_m = clear_height_m
        self.reset()

    def reset(self) -> None:
        """No attempt made yet."""
        self._waypoints: list[Array] = []
        self._grip, self._wait, self.used = -1.0, 0, 0

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """It moves the tool by dx, dy, dz, opens `gripper`, and reads where the tool is. Raises SpecMismatchError."""
        kinds = {dimension.name: dimension.kind for dimension in actions.dimensions}
        wanted = {"dx": "delta", "dy": "delta", "dz": "delta", "gripper": "binary"}
        lacking = [f"a {kind} action {name}" for name, kind in wanted.items() if kinds.get(name) != kind]
        lacking += [
            f"a state {name}" for name in ("x_m", "y_m", "z_m", "gripper_open01") if name not in observations.state
        ]
        if lacking:
            raise SpecMismatchError(
                f"Retry backtracks along the tool's path and needs {', '.join(lacking)}; this robot has the actions "
                f"{', '.join(actions.names) or 'none'} and the state {', '.join(observations.state) or 'none'}. "
                "Leave the rung out, or use a person or a stop."
            )

    @property
    def spent(self) -> bool:
        """Whether all attempts are used."""
        return self.used >= self._attempts

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Start a backtrack at the trigger and see it through."""
        self._wait -= 1
        if not self._waypoints and verdict.trigger and not self.spent and self._wait <= 0:
            self._plan(context)
            self.used += 1
        if not self._waypoints:
            return CONTINUE
        action = self._follow(context)
        if not self._waypoints:
            self._wait = steps_in(self._cooldown_s, context.action_spec.rate_hz)
        return Decision(kind=DecisionKind.BACKTRACK, reason=f"retry {self.used}: {verdict.why}", action=action)

    def _plan(self, context: Context) -> None:
        spec, names = context.action_spec, context.observation_spec
        closed = spec.gripper_closed_sign
        gripper = spec.names.index("gripper")
        opening = float(context.state[names.index("gripper_open01")])
        told_to_close = float(context.last_action[gripper]) * closed > 0
        holding = told_to_close and opening > 0.1
        self._grip = float(closed if holding else -closed)
        xyz = [names.index(f"{a}_m") for a in "xyz"]
        here = context.state[xyz].astype(np.float64)
        if holding:
            self._waypoints = [np.array([here[0], here[1], max(here[2], self._clear_height_m)])]
            return
        back, apart = (steps_in(seconds, spec.rate_hz) for seconds in (self._back_s, _APART_S))
        past = [state[xyz].astype(np.float64) for state in context.path[-back:]]
        lifted = np.array([here[0], here[1], here[2] + 0.03])
        self._waypoints = [lifted, *past[::-apart]]
        self._waypoints.append(
            np.array([*self._waypoints[-1][:2], max(self._clear_height_m + 0.02, self._waypoints[-1][2])])
        )

    def _follow(self, context: Context) -> Array:
        spec, names = context.action_spec, context.observation_spec
        xyz = [names.index(f"{a}_m") for a in "xyz"]
        here = context.state[xyz].astype(np.float64)
        while self._waypoints and np.abs(self._waypoints[0] - here).max() < 0.012:
            self._waypoints.pop(0)
        action = spec.hold(context.last_action)
        action[spec.names.index("gripper")] = self._grip
        if self._waypoints:
            scale = np.array([spec.dimensions[spec.names.index(f"d{a}")].scale for a in "xyz"])
            move = (self._waypoints[0] - here) / scale
            for i, axis in enumerate("xyz"):
                action[spec.names.index(f"d{axis}")] = np.clip(move[i], -1, 1)
        return action
