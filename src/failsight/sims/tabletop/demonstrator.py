"""Demonstrations of the tabletop expert: noisy paths, exact labels.

The executed path carries noise (DART, Laskey et al. 2017, arXiv 1703.09327), so the policy learns to come back; at
every second step the simulator is saved, the noise-free expert acts for a whole chunk, and the simulator is restored:
the label is what the expert would do from here, not what the noise did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from failsight.core.contracts import Shown
from failsight.core.rng import keyed_rng
from failsight.core.types import Array, EpisodeKey, Perturbation
from failsight.sims.tabletop.env import TabletopEnv
from failsight.sims.tabletop.expert import TabletopExpert
from failsight.sims.tabletop.tasks import TASKS, find_task

CHUNK = 10
"""Actions per label."""


class Noise(NamedTuple):
    """How one episode's executed path is disturbed."""

    sigma: float
    burst_rate: float
    flip_rate: float


class TabletopDemonstrator:
    """The expert on a disturbed path, every second step a frame."""

    steps_per_frame = 2
    phrasings = {task.instruction(0): (task.instruction(1), task.instruction(2)) for task in TASKS.values()}  # noqa: RUF012

    def key(self, seed: int, index: int, tasks: Sequence[str]) -> EpisodeKey:
        """Tasks in turn; a quarter of the episodes starts from an odd robot pose, two fifths have a wider
        layout with a stray post (no closer than 8 cm to the target).
        """
        rng = keyed_rng(seed, "demonstration", index)
        perturbations = []
        if rng.random() < 0.25:
            perturbations.append(Perturbation("robot_start", int(rng.integers(1, 4))))
        if rng.random() < 0.40:
            perturbations.append(Perturbation("object_pose", int(rng.integers(1, 3))))
        task = tasks[index % len(tasks)]
        return EpisodeKey(seed=seed, task=task, episode=index, perturbations=tuple(sorted(perturbations)))

    def show(self, sim: TabletopEnv, key: EpisodeKey) -> Shown:
        """Frames with chunks (T, 10, 7) and places (T, 11): nine offsets and two flags. Failures teach too: labels are exact."""
        expert, rng = TabletopExpert(), keyed_rng(*key.parts, "dart")
        noise = Noise(float(rng.choice([0.0, 0.3, 0.6])), 0.02, 0.012)
        sim.reset(options={"key": key})
        frames: list[_Frame] = []
        burst, burst_left, flip_left, step, done = np.zeros(6), 0, 0, int(rng.integers(2)), False
        while not done:
            if step % self.steps_per_frame == 0:
                frames.append(self._frame(sim))
            action = expert.act(sim)
            if burst_left == 0 and rng.random() < noise.burst_rate:
                burst, burst_left = rng.uniform(-1, 1, 6) * [1, 1, 1, 0.3, 0.3, 0.6], int(rng.integers(3, 9))
            if burst_left:
                action[:6], burst_left = np.clip(action[:6] * 0.2 + burst, -1, 1), burst_left - 1
            action[:6] += noise.sigma * rng.standard_normal(6) * [1, 1, 1, 0.3, 0.3, 0.6]
            if flip_left == 0 and rng.random() < noise.flip_rate:
                flip_left = int(rng.integers(2, 6))
            if flip_left:
                action[6], flip_left = -action[6], flip_left - 1
            _, _, terminated, truncated, _ = sim.step(np.clip(action, -1, 1))
            done, step = terminated or truncated, step + 1
        return _shown(frames, [name for name, _, _ in sim.observation_spec.cameras])

    def chunk(self, sim: TabletopEnv) -> Array:
        """What the expert does from here, (10, 7); after the end it holds still with its last gripper command."""
        expert, saved, done = TabletopExpert(), sim.save_state(), False
        chunk = np.zeros((CHUNK, 7), np.float32)
        for i in range(CHUNK):
            if done:
                chunk[i] = sim.action_spec.hold(chunk[i - 1])
                continue
            chunk[i] = expert.act(sim)
            _, _, terminated, truncated, _ = sim.step(chunk[i])
            done = terminated or truncated
        sim.load_state(saved)
        return chunk

    def _frame(self, sim: TabletopEnv) -> _Frame:
        observation = sim.observe()
        state = observation["observation.state"]
        return _Frame(observation, state, _places(sim, state[:3]), self.chunk(sim))


class _Frame(NamedTuple):
    observation: dict[str, Array]
    state: Array
    places: Array
    chunk: Array


def _shown(frames: Sequence[_Frame], cameras: Sequence[str]) -> Shown:
    return Shown(
        images={name: np.stack([f.observation[f"observation.images.{name}"] for f in frames]) for name in cameras},
        states=np.stack([frame.state for frame in frames]),
        chunks=np.stack([frame.chunk for frame in frames]),
        places=np.stack([frame.places for frame in frames]),
    )


def _places(sim: TabletopEnv, tool: Array) -> Array:
    """(11,) float32: target, goal and post minus tool (dm; 0 without a post), then whether held and whether there is a post."""
    target = find_task(sim.key.task).target
    post = sim.post_position()
    to_post = np.zeros(3) if post is None else (post - tool) * 10
    offsets = [(sim.position(target) - tool) * 10, (sim.goal_position() - tool) * 10, to_post]
    return np.concatenate([*offsets, [sim.held == target, post is not None]]).astype(np.float32)
