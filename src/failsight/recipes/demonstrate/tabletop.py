"""Demonstrations of the tabletop expert: noisy paths, exact labels.

The executed path carries noise (DART, Laskey et al. 2017, arXiv 1703.09327), so the policy learns to come back; at
every second step the simulator is saved, the noise-free expert acts for a whole chunk, and the simulator is restored:
the label is what the expert would do from here, not what the noise did.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty
from typing import NamedTuple

import numpy as np

from failsight.core.errors import FailsightError
from failsight.core.rng import keyed_rng
from failsight.core.types import Array, EpisodeKey, Perturbation
from failsight.sims.tabletop.env import TabletopEnv
from failsight.sims.tabletop.expert import TabletopExpert
from failsight.sims.tabletop.tasks import TASKS, find_task
from failsight.training.tiny_data import Frames, save_frames

CHUNK = 10
TASK_IDS = tuple(TASKS)
_TRAIN_PHRASINGS = (0, 1, 2)
"""Wordings seen in training; levels 3 to 5 of the paraphrase perturbation stay unseen."""


class Noise(NamedTuple):
    """How one episode's executed path is disturbed."""

    sigma: float
    burst_rate: float
    flip_rate: float


def instructions() -> list[list[str]]:
    """The training wordings of every task, in task order."""
    return [[task.instruction(level) for level in _TRAIN_PHRASINGS] for task in TASKS.values()]


def episode_frames(env: TabletopEnv, key: EpisodeKey) -> dict[str, list[Array]]:
    """Frames of one demonstration, every second step."""
    expert, rng = TabletopExpert(), keyed_rng(*key.parts, "dart")
    noise = Noise(float(rng.choice([0.0, 0.3, 0.6])), 0.02, 0.012)
    env.reset(options={"key": key})
    frames: dict[str, list[Array]] = {"images": [], "state": [], "chunk": [], "aux": []}
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
    tcp = observation["observation.state"][:3]
    target = env.position(find_task(env.key.task).target)
    held = env.held == find_task(env.key.task).target
    post = env.post_position()
    to_post = np.zeros(3) if post is None else (post - tcp) * 10
    offsets = [(target - tcp) * 10, (env.goal_position() - tcp) * 10, to_post]
    aux = np.concatenate([*offsets, [held, post is not None]])
    frames["images"].append(np.stack(images).transpose(0, 3, 1, 2))
    frames["state"].append(observation["observation.state"])
    frames["aux"].append(aux.astype(np.float32))
    frames["chunk"].append(expert_chunk(env, expert))


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


_Part = tuple[int, int, dict[str, Array]]
"""Episode index, task index, stacked frames."""


def _work(seed: int, indices: list[int], queue: multiprocessing.Queue[_Part]) -> None:
    env = TabletopEnv(images="on_demand")
    for index in indices:
        key = demonstration_key(seed, index)
        frames = episode_frames(env, key)
        stacked = {name: np.stack(rows) for name, rows in frames.items()}
        queue.put((index, TASK_IDS.index(key.task), stacked))
    env.close()


def collect_demonstrations(
    folder: Path, episodes: int, seed: int, workers: int, progress: Callable[[int], None]
) -> None:
    """Collect `episodes` demonstrations with `workers` processes and write them to `folder`."""
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[_Part] = context.Queue(maxsize=64)
    processes = [
        context.Process(target=_work, args=(seed, list(range(w, episodes, workers)), queue), daemon=True)
        for w in range(workers)
    ]
    for process in processes:
        process.start()
    parts: dict[int, tuple[int, dict[str, Array]]] = {}
    while len(parts) < episodes:
        index, task, arrays = _next(queue, processes)
        parts[index] = (task, arrays)
        progress(len(parts))
    for process in processes:
        process.join()
    save_frames(_assemble(parts), instructions(), folder)


def _next(queue: multiprocessing.Queue[_Part], processes: Sequence[multiprocessing.process.BaseProcess]) -> _Part:
    """The next part. Raises FailsightError when a worker died and nothing more comes."""
    while True:
        try:
            return queue.get(timeout=5)
        except Empty:
            if any(process.exitcode for process in processes):
                raise FailsightError(
                    "A process that records demonstrations died; run the same command again."
                ) from None


def _assemble(parts: dict[int, tuple[int, dict[str, Array]]]) -> Frames:
    order = sorted(parts)
    lengths = [len(parts[i][1]["state"]) for i in order]
    images, state, chunk, aux = (
        np.concatenate([parts[i][1][name] for i in order]) for name in ("images", "state", "chunk", "aux")
    )
    task = np.repeat([parts[i][0] for i in order], lengths).astype(np.int32)
    return Frames(images, state, chunk, aux, task, np.repeat(order, lengths).astype(np.int32))
