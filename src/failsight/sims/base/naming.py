"""Gymnasium entry: any simulator here, its observations under LeRobot's names or under names without dots.

Libraries that keep one network module per observation (stable-baselines3's `MultiInputPolicy`) cannot have dots in names.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
from gymnasium import spaces

from failsight.core.errors import UnknownNameError
from failsight.core.registry import load
from failsight.core.types import Array

NAMES = ("lerobot", "plain")


def make_env(
    env: str, observation_names: Literal["lerobot", "plain"] = "lerobot", **options: Any
) -> gymnasium.Env[dict[str, Array], Array]:
    """The environment class at `env` ("module:Class"); `plain` turns the dots of its names into underscores.

    It takes actions (A,) and gives a state (S,) and images (H, W, 3). Raises UnknownNameError for other naming.
    """
    if observation_names not in NAMES:
        raise UnknownNameError("naming of observations", observation_names, NAMES)
    made: gymnasium.Env[dict[str, Array], Array] = load(env)(**options)
    return PlainNames(made) if observation_names == "plain" else made


class PlainNames(gymnasium.ObservationWrapper[dict[str, Array], Array, dict[str, Array]]):
    """`observation.images.agent` -> `observation_images_agent`."""

    def __init__(self, env: gymnasium.Env[dict[str, Array], Array]) -> None:
        super().__init__(env)
        space: Any = env.observation_space
        plain: Any = spaces.Dict({_plain(name): part for name, part in space.spaces.items()})
        self.observation_space = plain

    def observation(self, observation: dict[str, Array]) -> dict[str, Array]:
        """The same values, (S,) and (H, W, 3), under other names."""
        return {_plain(name): value for name, value in observation.items()}


def _plain(name: str) -> str:
    return name.replace(".", "_")
