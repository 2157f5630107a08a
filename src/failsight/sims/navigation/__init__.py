"""A wheeled robot in a room: MuJoCo, primitive geoms, boxes to go around and a bottle to reach."""

import os
import sys

if sys.platform.startswith("linux") and "DISPLAY" not in os.environ:
    os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is imported: headless rendering by default

import gymnasium

ENV_ID = "failsight/Navigation-v0"


def register_envs() -> None:
    """Register the Gymnasium id `failsight/Navigation-v0`."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(ENV_ID, entry_point="failsight.sims.navigation.env:NavigationEnv", max_episode_steps=40)
