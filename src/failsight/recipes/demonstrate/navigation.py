"""Demonstrations of the navigation expert as Mobile-VLA files, made by worker processes and resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from failsight.core.errors import FailsightError
from failsight.core.rng import keyed_rng
from failsight.core.types import EpisodeKey, Perturbation
from failsight.episodes.demonstrations import Demonstration
from failsight.episodes.formats.mobile_vla import CAMERA, files_of, write_episode
from failsight.runtime.pool import run_pool
from failsight.sims.navigation.env import STATE_NAMES, NavigationEnv, action_spec
from failsight.sims.navigation.expert import NavigationExpert
from failsight.sims.navigation.scenarios import SCENARIOS, find_scenario

NOISE = (0.0, 0.12, 0.25)
"""Deviations of the executed velocity, m/s; drawn per episode (DART, Laskey et al. 2017, arXiv 1703.09327)."""


class Order(NamedTuple):
    """One demonstration to make."""

    number: int
    key: EpisodeKey
    path: Path


def demonstration_keys(scenarios: Sequence[str], episodes: int, seed: int) -> list[EpisodeKey]:
    """Scenarios in turn; half of the episodes start from an odd pose."""
    keys = []
    for index in range(episodes):
        rng = keyed_rng(seed, "demonstration", index)
        odd = (Perturbation("start_pose", int(rng.integers(1, 5))),) if rng.random() < 0.5 else ()
        keys.append(EpisodeKey(seed=seed, task=scenarios[index % len(scenarios)], episode=index, perturbations=odd))
    return keys


def require_scenarios(names: Sequence[str]) -> Sequence[str]:
    """Known scenario names, all when none is given. Raises UnknownNameError with the nearest ones."""
    return [find_scenario(name).id for name in names] or SCENARIOS


def demonstrate(
    folder: Path,
    episodes: int,
    *,
    seed: int,
    actions: int = 3,
    scenarios: Sequence[str] = SCENARIOS,
    workers: int = 2,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Write `episodes` successful demonstrations to `folder`; files that are there already are kept.

    Returns how many drives were dropped because noise drove them into something (another seed replaces them).
    Raises FailsightError when the folder holds files of another plan.
    """
    action_spec(actions)  # refuses another number here, not in every worker
    keys = demonstration_keys(scenarios, episodes, seed)
    orders = [Order(i, key, folder / f"episode_{i:05d}_{key.task}.h5") for i, key in enumerate(keys)]
    foreign = {path.name for path in files_of(folder)} - {order.path.name for order in orders}
    if foreign:
        raise FailsightError(f"{folder} holds other recordings ({sorted(foreign)[0]}, ...); choose another folder.")
    missing = [order for order in orders if not order.path.is_file()]
    done, dropped = len(orders) - len(missing), 0
    for count in range(1, done + 1):
        progress(count)
    for _, failures in run_pool(partial(NavigationEnv, images="on_demand", actions=actions), _make, missing, workers):
        done, dropped = done + 1, dropped + failures
        progress(done)
    return dropped


def _make(env: NavigationEnv, order: Order) -> int:
    """Drive until it succeeds; returns how many tries failed."""
    for attempt in range(20):
        key = EpisodeKey(
            seed=order.key.seed + 7_000_003 * attempt,
            task=order.key.task,
            episode=order.number,
            perturbations=order.key.perturbations,
        )
        item = drive(env, key)
        if item is not None:
            write_episode(order.path, item, STATE_NAMES)
            return attempt
    raise FailsightError(f"The expert failed 20 times in {order.key.task}; the scenario has no way through.")


def drive(env: NavigationEnv, key: EpisodeKey) -> Demonstration | None:
    """One noisy drive with the expert's noise-free commands as labels; None when it did not reach the bottle."""
    expert, rng = NavigationExpert(), keyed_rng(*key.parts, "dart")
    sigma = float(rng.choice(NOISE))
    env.reset(options={"key": key})
    images, states, commands = [], [], []
    while True:
        observation = env.observe()
        command = expert.act(env)
        images.append(observation[f"observation.images.{CAMERA}"])
        states.append(observation["observation.state"])
        commands.append(command)
        noise = sigma * rng.standard_normal(len(command)).astype(np.float32)
        _, _, terminated, truncated, info = env.step(command + noise)
        if terminated or truncated:
            break
    if not info["success"]:
        return None
    return Demonstration(
        name=f"{key.task}-{key.episode}",
        instruction=env.task.instruction,
        scenario=key.task,
        images={CAMERA: np.stack(images)},
        states=np.stack(states),
        actions=np.stack(commands),
    )
