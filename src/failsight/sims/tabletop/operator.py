"""The person who is called when a policy on the tabletop needs help, in simulation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from failsight.core.types import Array
from failsight.sims.tabletop.clearance import TIP_BELOW_TCP_M, Grasp, best_grasp, highest_between, obstacles
from failsight.sims.tabletop.env import ACTION_SPEC, STEP_M, STEP_RAD, TabletopEnv
from failsight.sims.tabletop.expert import CARRY_M, HOVER_M, nearest_face
from failsight.sims.tabletop.noticed import Noticed
from failsight.sims.tabletop.scene import BIN_Y, OBJECT_HALF
from failsight.sims.tabletop.tasks import find_task

_GAIN, _STEADY_GAIN = 0.6, 1.0
"""Share of the remaining way commanded per step; an arm that shakes is corrected whole."""
_REACH_M = 0.065
"""Half the width of the lane that has to be free for the palm to pass low."""
_MARGIN_M = 0.02
"""Air under whatever passes over an obstacle, m."""
_LYING = 0.7
"""A cylinder whose axis rises less than this lies on its side."""
_MAX_YAW = 1.85
"""As far as the gripper turns, rad."""


class TabletopOperator:
    """The person who is called: slow with what slips, patient with a shaking arm, clear of what stands about.

    It knows what somebody beside the table knows. It sees: the true poses of arm, objects, posts and walls, the task,
    and whether the object is between the fingers. It is told nothing of friction, noise or faults: that something
    slips it sees when the object moves in the fingers or falls out of them, that the arm shakes when the arm does not
    go where it was sent. It remembers both while it acts without a break. The demonstrations that the shipped
    policies learned from come from `TabletopExpert`, which stays as it was.
    """

    def __init__(self) -> None:
        self._noticed: Noticed | None = None

    def act(self, sim: TabletopEnv) -> Array:
        """(7,) float32 action for the present state."""
        noticed = self._noticed = Noticed.after(self._noticed, sim)
        task, state = find_task(sim.key.task), sim.state()
        if sim.held == task.target:
            move = self._carry(sim, noticed)
        elif sim.held is not None or sim.goal_reached():
            move = _Move(_raised(state, CARRY_M), float(state[5]), close=False)
        else:
            move = self._fetch(sim, noticed)
        action = _command(state, move, noticed)
        noticed.sent = action
        return action

    def _fetch(self, sim: TabletopEnv, noticed: Noticed) -> _Move:
        """Above the object, down, close; up again when low and out of line."""
        target, state = find_task(sim.key.task).target, sim.state()
        around, place, tcp = obstacles(sim, target), sim.position(target), state[:3].astype(np.float64)
        grasp = best_grasp(around, place, _yaws(sim, target))
        point, above = grasp.point, float(tcp[2] - grasp.point[2])
        along, across, turn = _error(state, grasp)
        fits = along < noticed.slack_m and across < noticed.slack_m and turn < 0.12
        if fits and above < 0.006:
            return _Move(point, grasp.yaw, close=True)
        if state[6] < 0.9 and above < 0.05:
            return _Move(tcp if fits else _raised(state, point[2] + HOVER_M), grasp.yaw if fits else float(state[5]))
        if max(along, across) < noticed.slack_m + 0.15 * max(0.0, above - 0.03) and turn < 0.15:
            return _Move(point, grasp.yaw)
        top = highest_between(around, tcp, point, _REACH_M)
        height = max(place[2] + HOVER_M, top + TIP_BELOW_TCP_M + _MARGIN_M)
        if tcp[2] < height - 0.015:
            return _Move(_raised(state, height + 0.01), float(state[5]))
        return _Move(np.array([*point[:2], height]), grasp.yaw)

    def _carry(self, sim: TabletopEnv, noticed: Noticed) -> _Move:
        """Straight up, over, down, open."""
        task, state = find_task(sim.key.task), sim.state()
        goal, point, tcp = sim.goal_position(), sim.position(task.target), state[:3].astype(np.float64)
        grip, yaw = tcp - point, float(state[5])
        into_bin = task.goal in BIN_Y
        off = float(np.hypot(*(goal[:2] - point[:2])))
        release = float(goal[2]) + (0.035 if into_bin else 0.003)
        turn = yaw if into_bin else yaw + nearest_face(_face(sim.axes(task.goal)) - _face(sim.axes(task.target)))
        low = point[2] < release + 0.02
        if off < (0.02 if into_bin else 0.005 + noticed.shake_m + (0.004 if low else 0.0)):
            close = point[2] > release + 0.006 + noticed.shake_m / 2
            return _Move(np.array([*goal[:2], release]) + grip, turn, close=close, held=True)
        top = highest_between(obstacles(sim, task.target), point, goal, _REACH_M)
        height = max(goal[2] + 0.04, top + OBJECT_HALF + _MARGIN_M)
        if point[2] < height - 0.01 and off > 0.05:
            return _Move(np.array([*tcp[:2], height + grip[2] + 0.01]), turn, close=True, held=True)
        return _Move(np.array([*goal[:2], height]) + grip, turn, close=True, held=True)


class _Move(NamedTuple):
    """Where to go, m and rad, what the fingers do, and whether something is in them."""

    goal: Array
    yaw: float
    close: bool = False
    held: bool = False


def _yaws(sim: TabletopEnv, name: str) -> list[float]:
    """Yaws (rad) at which the fingers lie flat on the object, standing or tumbled."""
    axes, face = sim.axes(name), 0.0
    turns: tuple[float, ...] = (0.0, 1.0, -1.0)
    if "cylinder" not in name:
        face = _face(axes)
    elif abs(axes[2, 2]) < _LYING:
        face, turns = _heading(axes[:, 2]), (0.0, 2.0, -2.0)
    else:
        turns = (0.0, 1.0, -1.0, 0.5, -0.5)
    return [yaw for turn in turns if abs(yaw := face + turn * np.pi / 2) < _MAX_YAW]


def _face(axes: Array) -> float:
    """Direction (rad, nearest 0) of a cube's faces, whichever of them is up."""
    flattest = int(np.abs(axes[2]).argmin())
    return nearest_face(_heading(axes[:, flattest]))


def _heading(axis: Array) -> float:
    return float(np.arctan2(axis[1], axis[0]))


def _error(state: Array, grasp: Grasp) -> tuple[float, float, float]:
    """How far the tool is from a grasp, along and across the fingers (m) and in yaw (rad)."""
    yaw = float(state[5])
    x, y = grasp.point[:2] - state[:2]
    along, across = np.cos(yaw) * x + np.sin(yaw) * y, -np.sin(yaw) * x + np.cos(yaw) * y
    return abs(float(along)), abs(float(across)), abs(grasp.yaw - yaw)


def _raised(state: Array, height: float) -> Array:
    """(3,) the place of the tool at another height."""
    return np.array([state[0], state[1], height], np.float64)


def _command(state: Array, move: _Move, noticed: Noticed) -> Array:
    """(7,) float32 action: the rest of the way, no faster than what is held allows."""
    gain, pace = (_STEADY_GAIN if noticed.shakes else _GAIN), noticed.pace if move.held else 1.0
    way = (move.goal - state[:3] - state[8:11]) * gain / STEP_M
    action = np.zeros(len(ACTION_SPEC.dimensions), np.float32)
    action[:3] = way / max(1.0, float(np.abs(way).max()) / pace)
    action[3:5] = np.clip(-state[3:5] * _GAIN / STEP_RAD, -1, 1)
    action[5] = np.clip((move.yaw - state[5]) * _GAIN / STEP_RAD, -pace, pace)
    action[6] = 1.0 if move.close else -1.0
    return action
