"""The scripted driver: around the boxes on the instructed side, then to the bottle.

It sees the layout. With three dimensions it turns towards where it is going, so that the bottle stays in view; with
two it only slides.
"""

from __future__ import annotations

import numpy as np

from failsight.core.types import Array
from failsight.sims.navigation.env import SPEED_M_S, TURN_RAD_S, NavigationEnv
from failsight.sims.navigation.scenarios import box_corners
from failsight.sims.navigation.scene import RATE_HZ, ROBOT_RADIUS_M

CRUISE_M_S = 0.40
CLEARANCE_M = 0.13


class NavigationExpert:
    """Memoryless: the next waypoint follows from where the robot is."""

    def act(self, env: NavigationEnv) -> Array:
        """(A,) velocity command for the present state."""
        x, y, yaw = env.pose()
        goal = self._waypoint(env)
        away = goal - [x, y]
        length = float(np.hypot(*away))
        speed = min(CRUISE_M_S, length * RATE_HZ)
        way = away / max(length, 1e-6) * speed
        local = np.array([np.cos(yaw) * way[0] + np.sin(yaw) * way[1], -np.sin(yaw) * way[0] + np.cos(yaw) * way[1]])
        command = np.array([*np.clip(local, -SPEED_M_S, SPEED_M_S), self._turn(env, yaw)], np.float32)
        return command[: len(env.action_spec.dimensions)]

    def _waypoint(self, env: NavigationEnv) -> Array:
        """Beside the near corner, then beside the far corner, then the bottle; straight on where nothing is in the way."""
        here, bottle = env.pose()[:2], env.bottle()
        side = 1.0 if env.key.task.endswith("left") else -1.0
        corners = box_corners(env.scene)
        room = ROBOT_RADIUS_M + CLEARANCE_M
        edge = side * (float((side * corners[:, 1]).max()) + room)
        near, far = float(corners[:, 0].min()) - 0.10, float(corners[:, 0].max()) + 0.12
        if here[0] < near - 0.05:
            return np.array([near, edge])
        if here[0] < far:
            beside = side * (here[1] - edge) > -0.06
            return np.array([far + 0.05 if beside else here[0] + 0.05, edge])
        return np.asarray(bottle)

    def _turn(self, env: NavigationEnv, yaw: float) -> float:
        """Towards the bottle, gently."""
        away = env.bottle() - env.pose()[:2]
        error = (np.arctan2(away[1], away[0]) - yaw + np.pi) % (2 * np.pi) - np.pi
        return float(np.clip(0.8 * error, -TURN_RAD_S / 3, TURN_RAD_S / 3))
