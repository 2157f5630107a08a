"""What a person at the tabletop notices while acting: that something slips, that the arm shakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from failsight.core.types import Array, EpisodeKey
from failsight.sims.tabletop.env import STEP_M, TabletopEnv
from failsight.sims.tabletop.tasks import find_task

_SLIP_M = 0.003
"""An object that moved this far in the fingers slips."""
_SHAKE = 0.12
"""An arm that goes this share of a full action astray shakes."""
_SHAKE_STEPS = (3, 12)
"""Moves it takes at least to tell, and moves looked back at."""


@dataclass(slots=True)
class Noticed:
    """What the operator noticed since it began to act."""

    key: EpisodeKey
    step: int
    target_m: Array
    """(3,) where the servos were last told to go."""
    sent: Array
    astray: list[float]
    """How far off its command each of the last moves went, in full actions."""
    slips: bool = False
    grip_m: float | None = None
    """Height of the tool centre point above the held object's centre when it was first held."""

    @classmethod
    def after(cls, last: Noticed | None, sim: TabletopEnv) -> Noticed:
        """What is known now; a new start unless the last action was sent one step ago."""
        state = sim.state()
        target = state[:3].astype(np.float64) + state[8:11]
        if last is None or not last._leads_to(sim, target):
            last = cls(sim.key, sim.steps, target, np.zeros(7, np.float32), [])
        else:
            error = (target - last.target_m) / STEP_M - last.sent[:3]
            last.astray.append(float(np.abs(error).mean()))
        last.step, last.target_m = sim.steps, target
        last._feel(sim, state)
        return last

    def _leads_to(self, sim: TabletopEnv, target: Array) -> bool:
        """Whether the simulator is one step on; a reset or a restored state is another story."""
        jump = float(np.abs(target - self.target_m).max())
        return self.key == sim.key and self.step == sim.steps - 1 and jump < 1.5 * STEP_M

    def _feel(self, sim: TabletopEnv, state: Array) -> None:
        """Whether the held object moves in the fingers, or fell out of closed ones."""
        if sim.held != find_task(sim.key.task).target:
            self.slips |= self.grip_m is not None and self.sent[6] > 0 and state[7] < 0.5
            self.grip_m = None
            return
        grip = float(state[2] - sim.position(sim.held)[2])
        self.grip_m = grip if self.grip_m is None else self.grip_m
        self.slips |= grip - self.grip_m > _SLIP_M

    @property
    def shakes(self) -> bool:
        """Whether the arm goes elsewhere than it is sent."""
        least, most = _SHAKE_STEPS
        return len(self.astray) >= least and float(np.median(self.astray[-most:])) > _SHAKE

    @property
    def shake_m(self) -> float:
        """What a shaking arm is forgiven, m."""
        return 0.006 if self.shakes else 0.0

    @property
    def slack_m(self) -> float:
        """How far off the line fingers may close, m."""
        return 0.006 + self.shake_m / 2

    @property
    def pace(self) -> float:
        """Share of the full speed for carrying."""
        return 1.0 if self.shakes or not self.slips else 0.5
