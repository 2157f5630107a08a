"""Demonstrations of the scripted driver: what is executed carries noise, the labels are its noise-free commands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from failsight.core.contracts import Shown
from failsight.core.rng import keyed_rng
from failsight.core.types import Array, EpisodeKey, Perturbation
from failsight.sims.navigation.env import NavigationEnv
from failsight.sims.navigation.expert import NavigationExpert
from failsight.sims.navigation.scenarios import PHRASINGS

NOISE = (0.0, 0.12, 0.25)
"""Deviations of the executed velocity, m/s; drawn per episode (DART, Laskey et al. 2017, arXiv 1703.09327)."""


class NavigationDemonstrator:
    """The driver on a disturbed path, every step a frame."""

    steps_per_frame = 1
    phrasings = PHRASINGS

    def key(self, seed: int, index: int, tasks: Sequence[str]) -> EpisodeKey:
        """Scenarios in turn; half of the episodes start from an odd pose."""
        rng = keyed_rng(seed, "demonstration", index)
        odd = (Perturbation("start_pose", int(rng.integers(1, 5))),) if rng.random() < 0.5 else ()
        return EpisodeKey(seed=seed, task=tasks[index % len(tasks)], episode=index, perturbations=odd)

    def show(self, sim: NavigationEnv, key: EpisodeKey) -> Shown | None:
        """One noisy episode, chunks (T, 1, A); None when it did not reach the bottle."""
        rng = keyed_rng(*key.parts, "dart")
        sigma = float(rng.choice(NOISE))
        sim.reset(options={"key": key})
        (camera, _, _), done = sim.observation_spec.cameras[0], False
        images, states, chunks = [], [], []
        while not done:
            observation, chunk = sim.observe(), self.chunk(sim)
            images.append(observation[f"observation.images.{camera}"])
            states.append(observation["observation.state"])
            chunks.append(chunk)
            noise = sigma * rng.standard_normal(chunk.shape[1:]).astype(np.float32)
            _, _, terminated, truncated, info = sim.step(chunk[0] + noise)
            done = terminated or truncated
        if not info["success"]:
            return None
        return Shown(images={camera: np.stack(images)}, states=np.stack(states), chunks=np.stack(chunks))

    def chunk(self, sim: NavigationEnv) -> Array:
        """(1, A) velocity command for the present state."""
        return NavigationExpert().act(sim)[None]
