"""Tabletop data for training: noisy demonstrations, and a policy's own episodes with the expert's corrections.

Every second step carries what the noise-free expert would do for a whole chunk from there; the policy's own episodes
also carry failure labels (Ross et al. 2011, arXiv 1011.0686: learn where the learner goes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from failsight.core.contracts import Sim
from failsight.core.errors import FailsightError
from failsight.core.specs import ObservationSpec
from failsight.core.types import Array, EpisodeKey, Outcome
from failsight.episodes.demonstrations import (
    OPTIONAL,
    Demonstration,
    DemonstrationSet,
    load_demonstrations,
    save_demonstrations,
)
from failsight.labels.failure_tokens import HORIZON_S
from failsight.recipes.demonstrate.tabletop import demonstration_key, episode_frames, expert_chunk
from failsight.runtime.bench import Bench
from failsight.runtime.loop import Loop
from failsight.runtime.pool import run_pool
from failsight.sims.tabletop.env import ACTION_SPEC, STATE_NAMES, TabletopEnv
from failsight.sims.tabletop.expert import TabletopExpert
from failsight.sims.tabletop.tasks import TASKS
from failsight.training.options import Augment
from failsight.workflows.wiring import labeler_of, make_bench

STEPS_PER_FRAME = 2
TABLETOP_AUGMENT = Augment(shift_px=0, gain=0.25, tint=0.10, offset=0.08)
"""No shift: it moves what is grasped and leaves the action where it was."""
CAMERAS = (("agent", 64, 64), ("wrist", 64, 64))


class Order(NamedTuple):
    """One episode to make."""

    number: int
    key: EpisodeKey
    part: Path


def tabletop_data(
    folder: Path,
    demonstrations: int,
    own: Sequence[EpisodeKey],
    policy: str,
    seed: int,
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> DemonstrationSet:
    """Expert demonstrations and `policy`'s own episodes in one data set; finished parts of an interrupted call stay."""
    if (folder / "episodes.json").is_file():
        return load_demonstrations(folder)
    parts = folder.with_name(folder.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    shown = [Order(i, demonstration_key(seed, i), parts / f"{i:06d}.npz") for i in range(demonstrations)]
    made = [Order(demonstrations + i, key, parts / f"{demonstrations + i:06d}.npz") for i, key in enumerate(own)]
    count = 0
    for orders, build, work in (
        (shown, partial(TabletopEnv, images="on_demand"), _demonstrate),
        (made, partial(make_bench, "tabletop", policy), _correct),
    ):
        missing = [order for order in orders if not order.part.is_file()]
        for _ in range(len(orders) - len(missing)):
            progress(count := count + 1)
        for _ in run_pool(build, work, missing, workers):
            progress(count := count + 1)
    data = save_demonstrations(
        folder,
        _read([*shown, *made], OPTIONAL if not made else [name for name in OPTIONAL if name != "places"]),
        ACTION_SPEC,
        ObservationSpec(state=STATE_NAMES, cameras=CAMERAS),
        source=_source(demonstrations, len(own), policy, seed),
        steps_per_frame=STEPS_PER_FRAME,
        phrasings={task.instruction(0): [task.instruction(level) for level in (1, 2)] for task in TASKS.values()},
    )
    for order in (*shown, *made):
        order.part.unlink()
    parts.rmdir()
    return data


def _source(demonstrations: int, own: int, policy: str, seed: int) -> str:
    driven = f", {own} episodes of {policy}" if own else ""
    return f"tabletop: {demonstrations} demonstrations{driven}, seed {seed}"


def _read(orders: Sequence[Order], optional: Sequence[str]) -> Iterator[Demonstration]:
    """`optional`: arrays to take where they are; a policy's own episodes have no places, and a data set is uniform."""
    for order in orders:
        with np.load(order.part) as part:
            images = part["images"].transpose(1, 0, 3, 4, 2)
            yield Demonstration(
                name=f"{order.key.task}-{order.number}",
                instruction=TASKS[order.key.task].instruction(0),
                scenario=order.key.task,
                images={name: images[i] for i, (name, _, _) in enumerate(CAMERAS)},
                states=part["state"],
                actions=part["chunk"][:, 0],
                **{name: part[name] for name in optional if name in part} | {"chunks": part["chunk"]},
            )


def _demonstrate(env: TabletopEnv, order: Order) -> None:
    frames = {name: np.stack(rows) for name, rows in episode_frames(env, order.key).items()}
    unknown = np.full(len(frames["state"]), np.nan, np.float32)
    _write(order.part, {**frames, "fails": unknown, "failing": unknown, "left": unknown})


def _correct(bench: Bench, order: Order) -> None:
    """The policy acts; the expert says what it would have done."""
    loop, expert = Loop(bench.sim, bench.policy), TabletopExpert()
    frames: dict[str, list[Array]] = {"images": [], "state": [], "chunk": []}
    states: list[Array] = []
    actions: list[Array] = []
    loop.start(order.key)
    while not loop.done:
        if len(states) % STEPS_PER_FRAME == 0:
            _look(bench.sim, expert, frames)
        step, verdict = loop.perceive()
        states.append(step.state)
        actions.append(step.action)
        loop.act(step, verdict)
    if loop.trace.outcome == Outcome.ERRORED:
        raise FailsightError(
            f"Episode {order.number} of {order.key.task} errored and teaches nothing: {loop.trace.error}."
        )
    success = loop.trace.outcome == Outcome.SUCCESS
    label = labeler_of("tabletop", ACTION_SPEC).label(
        order.key.task, np.stack(states), np.stack(actions), loop.trace.events, success
    )
    left = label.time_to_failure[::STEPS_PER_FRAME].astype(np.float32)
    labels = {
        "fails": np.full(len(left), float(not success), np.float32),
        "left": left,
        "failing": (left / ACTION_SPEC.rate_hz <= HORIZON_S).astype(np.float32),
    }
    _write(order.part, {name: np.stack(rows) for name, rows in frames.items()} | labels)


def _look(sim: Sim, expert: TabletopExpert, frames: dict[str, list[Array]]) -> None:
    assert isinstance(sim, TabletopEnv)
    observation = sim.observe()
    images = [observation[f"observation.images.{name}"] for name, _, _ in CAMERAS]
    frames["images"].append(np.stack(images).transpose(0, 3, 1, 2))
    frames["state"].append(observation["observation.state"])
    frames["chunk"].append(expert_chunk(sim, expert))


def _write(path: Path, arrays: dict[str, Array]) -> None:
    partial_path = path.with_suffix(".partial.npz")
    with open(partial_path, "wb") as file:
        np.savez(file, **dict[str, Any](arrays))
    partial_path.replace(path)
