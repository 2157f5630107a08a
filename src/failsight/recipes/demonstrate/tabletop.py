"""Demonstrations of the tabletop expert: noisy paths, exact labels.

The executed path carries noise (DART, Laskey et al. 2017, arXiv 1703.09327), so the policy learns to come back; at
every second step the simulator is saved, the noise-free expert acts for a whole chunk, and the simulator is restored:
the label is what the expert would do from here, not what the noise did.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from failsight.core.rng import keyed_rng
from failsight.core.types import Array, EpisodeKey, Perturbation
from failsight.sims.tabletop.env import TabletopEnv
from failsight.sims.tabletop.expert import TabletopExpert
from failsight.sims.tabletop.tasks import TASKS, find_task

CHUNK = 10
OFFSETS, FLAGS = 9, 2
"""Of `_places`."""
TASK_IDS = tuple(TASKS)


class Noise(NamedTuple):
    """How one episode's executed path is disturbed."""

    sigma: float
    burst_rate: float
    flip_rate: float


def episode_frames(env: TabletopEnv, key: EpisodeKey) -> dict[str, list[Array]]:
    """Frames of one demonstration, every second step.

    Each has images (2, 3, H, W) uint8, state (11,), chunk (CHUNK, 7) and places (11,), float32.
    """
    expert, rng = TabletopExpert(), keyed_rng(*key.parts, "dart")
    noise = Noise(float(rng.choice([0.0, 0.3, 0.6])), 0.02, 0.012)
    env.reset(options={"key": key})
    frames: dict[str, list[Array]] = {"images": [], "state": [], "chunk": [], "places": []}
    burst, burst_left, flip_left, step, done = np.zeros(6), 0, 0, int(rng.integers(2)), False
    while not done:
        if step % 2 == 0:
            _record(env, expert, frames)
        action = expert.act(env)
        if burst_left == 0 and rng.random() < noise.burst_rate:
            burst, burst_left = rng.uniform(-1, 1, 6) * [1, 1, 1, 0.3, 0.3, 0.6], int(rng.integers(3, 9))
        if burst_left:
            action[:6], burst_left = np.clip(action[:6] * 0.2 + burst, -1, 1), burst_left - 1
        action[:6] += noise.sigma * rng.standard_normal(6) * [1, 1, 1, 0.3, 0.3, 0.6]
        if flip_left == 0 and rng.random() < noise.flip_rate:
            flip_left = int(rng.integers(2, 6))
        if flip_left:
            action[6], flip_left = -action[6], flip_left - 1
        _, _, terminated, truncated, _ = env.step(np.clip(action, -1, 1))
        done, step = terminated or truncated, step + 1
    return frames


def _record(env: TabletopEnv, expert: TabletopExpert, frames: dict[str, list[Array]]) -> None:
    observation = env.observe()
    images = [observation[f"observation.images.{name}"] for name, _, _ in env.observation_spec.cameras]
    frames["images"].append(np.stack(images).transpose(0, 3, 1, 2))
    frames["state"].append(observation["observation.state"])
    frames["places"].append(_places(env, observation["observation.state"][:3]))
    frames["chunk"].append(expert_chunk(env, expert))


def _places(env: TabletopEnv, tool: Array) -> Array:
    """(11,) float32: target, goal and post minus tool (dm; 0 without a post), then whether held and whether there is a post."""
    target = find_task(env.key.task).target
    post = env.post_position()
    to_post = np.zeros(3) if post is None else (post - tool) * 10
    offsets = [(env.position(target) - tool) * 10, (env.goal_position() - tool) * 10, to_post]
    return np.concatenate([*offsets, [env.held == target, post is not None]]).astype(np.float32)


def expert_chunk(env: TabletopEnv, expert: TabletopExpert) -> Array:
    """What the expert does from here, (CHUNK, 7); after the end it holds still with its last gripper command."""
    saved, chunk, done = env.save_state(), np.zeros((CHUNK, 7), np.float32), False
    for i in range(CHUNK):
        if done:
            chunk[i] = env.action_spec.hold(chunk[i - 1])
            continue
        chunk[i] = expert.act(env)
        _, _, terminated, truncated, _ = env.step(chunk[i])
        done = terminated or truncated
    env.load_state(saved)
    return chunk


def demonstration_key(seed: int, index: int) -> EpisodeKey:
    """Tasks in turn; a quarter of the episodes starts from an odd robot pose, two fifths have a wider
    layout with a stray post (no closer than 8 cm to the target).
    """
    rng = keyed_rng(seed, "demonstration", index)
    perturbations = []
    if rng.random() < 0.25:
        perturbations.append(Perturbation("robot_start", int(rng.integers(1, 4))))
    if rng.random() < 0.40:
        perturbations.append(Perturbation("object_pose", int(rng.integers(1, 3))))
    task = TASK_IDS[index % len(TASK_IDS)]
    return EpisodeKey(seed=seed, task=task, episode=index, perturbations=tuple(sorted(perturbations)))
