"""The embedded simulator: MuJoCo, primitive geoms, a gripper with real finger contacts, twelve tasks."""

import gymnasium

from failsight.sims.base.headless import choose_backend

choose_backend()

ENV_ID = "failsight/Tabletop-v0"


def register_envs() -> None:
    """Register the Gymnasium ids: `failsight/Tabletop-v0` with `task=`, and one id per task.

    All take `observation_names="plain"` for names without dots.
    """
    from failsight.sims.tabletop.tasks import HORIZON, TASKS

    entry, made = "failsight.sims.base.naming:make_env", {"env": "failsight.sims.tabletop.env:TabletopEnv"}
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(ENV_ID, entry_point=entry, kwargs=made, max_episode_steps=HORIZON)
        for task in TASKS:
            name = "".join(part.capitalize() for part in task.split("-"))
            gymnasium.register(
                f"failsight/Tabletop{name}-v0",
                entry_point=entry,
                kwargs={**made, "task": task},
                max_episode_steps=HORIZON,
            )
