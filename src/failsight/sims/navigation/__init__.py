"""A wheeled robot in a room: MuJoCo, primitive geoms, boxes to go around and a bottle to reach."""

import gymnasium

from failsight.sims.base.headless import choose_backend

choose_backend()

ENV_ID = "failsight/Navigation-v0"


def register_envs() -> None:
    """Register the Gymnasium id `failsight/Navigation-v0`; it takes `observation_names="plain"` for names without dots."""
    entry, made = "failsight.sims.base.naming:make_env", {"env": "failsight.sims.navigation.env:NavigationEnv"}
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(ENV_ID, entry_point=entry, kwargs=made, max_episode_steps=40)
