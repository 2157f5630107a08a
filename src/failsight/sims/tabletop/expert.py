"""The demonstrator: a scripted, state-feedback expert that sees the simulator's truth and needs no memory.

The shipped policies learned from what it does, so it stays as it is; who takes over from a policy is `operator`.
"""

from __future__ import annotations

import numpy as np

from failsight.core.types import Array
from failsight.sims.tabletop.env import ACTION_SPEC, STEP_M, STEP_RAD, TabletopEnv
from failsight.sims.tabletop.scene import BIN_Y, OBJECTS, WALL_TOP
from failsight.sims.tabletop.tasks import find_task

HOVER_M = 0.09
"""Approach height of the tool centre point above the object's centre."""
CARRY_M = 0.17
"""Carrying height: the held object's underside clears the wall by 5 cm."""
_GAIN = 0.6
"""Share of the remaining way commanded per step, so that the last centimetre is slow."""


class TabletopExpert:
    """Hover, align, descend, close, lift, carry, lower, open, retreat; also recovers dropped objects."""

    def act(self, sim: TabletopEnv) -> Array:
        """(7,) float32 action for the present state."""
        task = find_task(sim.key.task)
        state = sim.state()
        tcp, yaw = state[:3].astype(np.float64), float(state[5])
        if sim.held == task.target:
            goal, close = self._carry(sim, task.goal, tcp)
            turn = self._goal_yaw(sim, task.goal, yaw, task.target)
        elif sim.held is not None or sim.goal_reached():
            goal, close, turn = np.array([tcp[0], tcp[1], CARRY_M]), False, yaw
        else:
            goal, close, turn = self._approach(sim, task.target, tcp, yaw, float(state[6]))
        return self._towards(state, tcp, goal, turn - yaw, close)

    def _approach(
        self, sim: TabletopEnv, target: str, tcp: Array, yaw: float, opening: float
    ) -> tuple[Array, bool, float]:
        point = sim.position(target)
        turn = self._grasp_yaw(sim, target, point)
        off = float(np.hypot(*(point[:2] - tcp[:2])))
        aligned = off < 0.008 and abs(turn - yaw) < 0.12
        at_height = tcp[2] < point[2] + 0.006
        if aligned and at_height:
            return np.array([*point[:2], point[2]]), True, turn
        near = off < 0.008 + 0.15 * max(0.0, tcp[2] - point[2] - 0.03)
        if opening < 0.9 and tcp[2] < point[2] + 0.05:
            return np.array([*tcp[:2], point[2] + HOVER_M]) if not aligned else tcp, False, turn
        if near and abs(turn - yaw) < 0.15:
            return point, False, turn
        height = point[2] + HOVER_M if off < 0.05 else max(point[2] + HOVER_M, self._clearance(sim, tcp, point))
        if tcp[2] < height - 0.03:
            return np.array([*tcp[:2], height]), False, turn
        return np.array([*point[:2], height]), False, turn

    def _carry(self, sim: TabletopEnv, goal_name: str, tcp: Array) -> tuple[Array, bool]:
        target = find_task(sim.key.task).target
        goal, point = sim.goal_position(), sim.position(target)
        grip = tcp - point
        off = float(np.hypot(*(goal[:2] - point[:2])))
        into_bin = goal_name in BIN_Y
        release_z = goal[2] + (0.035 if into_bin else 0.003)
        if off < (0.02 if into_bin else 0.005):
            down = goal + grip
            down[2] = release_z + grip[2]
            return down, point[2] > release_z + 0.006
        carry = CARRY_M if into_bin else max(0.13, goal[2] + 0.07)
        if point[2] < carry - 0.035 and off > 0.05:
            return np.array([*tcp[:2], carry + grip[2] + 0.01]), True
        over = goal + grip
        over[2] = carry + grip[2]
        return over, True

    @staticmethod
    def _clearance(sim: TabletopEnv, tcp: Array, point: Array) -> float:
        """Height at which to travel: above the wall when a bin edge has to be crossed, else hovering."""
        crossing = max(abs(tcp[1]), abs(point[1])) > 0.11
        return WALL_TOP + 0.045 if crossing else point[2] + HOVER_M

    @staticmethod
    def _goal_yaw(sim: TabletopEnv, goal_name: str, yaw: float, target: str) -> float:
        """Cubes are stacked face on face; for bins the yaw stays."""
        if goal_name not in OBJECTS:
            return yaw
        return yaw + nearest_face(sim.yaw(goal_name) - sim.yaw(target))

    def _neighbours(self, sim: TabletopEnv, target: str, point: Array) -> list[Array]:
        """(2,) offsets from the target to whatever stands close enough to be in the fingers' way."""
        offsets = [sim.position(n)[:2] - point[:2] for n in (*sim.objects, "post") if n != target]
        return [offset for offset in offsets if np.hypot(*offset) < 0.078]

    def _grasp_yaw(self, sim: TabletopEnv, target: str, point: Array) -> float:
        """The cube's face direction nearest 0, turned by a right angle when a neighbour is in the fingers' way."""
        face = 0.0 if "cylinder" in target else nearest_face(sim.yaw(target))
        close = self._neighbours(sim, target, point)
        if not close:
            return float(face)

        def blocked(yaw: float) -> float:
            axis = np.array([-np.sin(yaw), np.cos(yaw)])
            return float(max(abs(n @ axis) / np.hypot(*n) for n in close))

        options = [face, face + np.pi / 2, face - np.pi / 2]
        if "cylinder" in target:
            options += [np.pi / 4, -np.pi / 4]
        return float(min((o for o in options if abs(o) < 1.85), key=lambda o: (round(blocked(o), 1), abs(o))))

    @staticmethod
    def _towards(state: Array, tcp: Array, goal: Array, turn: float, close: bool) -> Array:
        lead = state[8:11]
        move = (goal - tcp - lead) * _GAIN / STEP_M
        action = np.zeros(len(ACTION_SPEC.dimensions), np.float32)
        action[:3] = move / max(1.0, float(np.abs(move).max()))
        action[3:5] = np.clip(-state[3:5] * _GAIN / STEP_RAD, -1, 1)
        action[5] = np.clip(turn * _GAIN / STEP_RAD, -1, 1)
        action[6] = 1.0 if close else -1.0
        return action


def nearest_face(angle: float) -> float:
    """The equivalent rotation of a square in [-45, 45) degrees, rad."""
    return float((angle + np.pi / 4) % (np.pi / 2) - np.pi / 4)
