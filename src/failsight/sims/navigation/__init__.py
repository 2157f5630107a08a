"""A wheeled robot in a room: MuJoCo, primitive geoms, boxes to go around and a bottle to reach."""

import gymnasium

from failsight.sims.headless import choose_backend

choose_backend()

ENV_ID = "failsight/Navigation-v0"


def register_envs() -> None:
    """Register the Gymnasium id `failsight/Navigation-v0`."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(ENV_ID, entry_point="failsight.sims.navigation.env:NavigationEnv", max_episode_steps=40)
