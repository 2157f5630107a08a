"""Importing this registers every Gymnasium id: `gymnasium.make("failsight.sims.ids:failsight/Tabletop-v0")`.

Gymnasium reads no entry points since 1.0; ones that do find `failsight.sims:register_envs` in the group `gymnasium.envs`.
"""

from failsight.sims import register_envs

register_envs()
