"""A data set for training: noisy demonstrations, and a policy's own episodes with the expert's corrections.

Every frame carries what the noise-free expert would do for a whole chunk from there; the policy's own episodes also
carry failure labels (Ross et al. 2011, arXiv 1011.0686: learn where the learner goes).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from failsight.core.contracts import Demonstrator, Labeler
from failsight.core.errors import FailsightError
from failsight.core.types import Array, EpisodeKey, Outcome
from failsight.episodes.demonstrations import (
    OPTIONAL,
    Demonstration,
    DemonstrationSet,
    load_demonstrations,
    save_demonstrations,
)
from failsight.labels.failure_tokens import HORIZON_S
from failsight.recipes.demonstrate.teacher import DemonstrationTicket, Teacher, make_teacher, require_only
from failsight.runtime.bench import Bench
from failsight.runtime.loop import Loop
from failsight.runtime.pool import run_pool
from failsight.workflows.plans import choose_tasks
from failsight.workflows.wiring import find_demonstrator, labeler_of, make_bench


@dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """What a data set is made of."""

    sim: str
    demonstrations: int
    seed: int
    tasks: tuple[str, ...] = ()
    """Of the demonstrations; all when empty."""
    policy: str = ""
    """Who acts in `own`."""
    own: tuple[EpisodeKey, ...] = ()
    """Episodes that the policy acts in and the expert corrects."""

    @property
    def source(self) -> str:
        """What the data set says of where it comes from."""
        only = f" of {', '.join(self.tasks)}" if self.tasks else ""
        driven = f", {len(self.own)} episodes of {self.policy}" if self.own else ""
        return f"{self.sim}: {self.demonstrations} demonstrations{only}{driven}, seed {self.seed}"


class Made(NamedTuple):
    """A data set, and how many demonstrations failed on the way."""

    data: DemonstrationSet
    dropped: int


class Pupil(NamedTuple):
    """A policy that acts, the expert that corrects it, and what says how it ended."""

    bench: Bench
    demonstrator: Demonstrator
    labeler: Labeler


def demonstration_data(
    plan: Curriculum, folder: Path, workers: int, progress: Callable[[int], None] = lambda done: None
) -> Made:
    """Expert demonstrations and a policy's own episodes in one data set; finished parts of an interrupted call stay.

    Raises FailsightError when the folder holds another data set, and when an own episode errors.
    """
    if (folder / "episodes.json").is_file():
        return Made(_require_same(load_demonstrations(folder), plan.source), 0)
    teacher = make_teacher(plan.sim)
    parts = folder.with_name(folder.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    shown, made = _plan(teacher, plan, parts)
    require_only(parts, (path for path in parts.glob("*.npz") if not path.match("*.partial.npz")), (*shown, *made))
    dropped = _make_parts(plan, shown, made, workers, progress)
    data = save_demonstrations(
        folder,
        _read(teacher, [*shown, *made], OPTIONAL if not made else [name for name in OPTIONAL if name != "places"]),
        teacher.sim.action_spec,
        teacher.sim.observation_spec,
        source=plan.source,
        steps_per_frame=teacher.demonstrator.steps_per_frame,
        phrasings=teacher.demonstrator.phrasings,
    )
    for ticket in (*shown, *made):
        ticket.path.unlink()
    parts.rmdir()
    return Made(data, dropped)


def _plan(
    teacher: Teacher, plan: Curriculum, parts: Path
) -> tuple[list[DemonstrationTicket], list[DemonstrationTicket]]:
    """Demonstrations and own episodes, numbered through."""
    tasks = choose_tasks(plan.sim, plan.tasks)
    keys = [teacher.demonstrator.key(plan.seed, i, tasks) for i in range(plan.demonstrations)]
    return _tickets(parts, 0, keys, plan.sim), _tickets(parts, len(keys), plan.own, plan.policy)


def _make_parts(
    plan: Curriculum,
    shown: Sequence[DemonstrationTicket],
    made: Sequence[DemonstrationTicket],
    workers: int,
    progress: Callable[[int], None],
) -> int:
    """Make what is missing; returns how many demonstrations failed."""
    count = dropped = 0
    for tickets, build, work in (
        (shown, partial(make_teacher, plan.sim), _demonstrate),
        (made, partial(make_pupil, plan.sim, plan.policy), _correct),
    ):
        missing = [ticket for ticket in tickets if not ticket.path.is_file()]
        for _ in range(len(tickets) - len(missing)):
            progress(count := count + 1)
        for _, failures in run_pool(build, work, missing, workers):
            dropped += failures
            progress(count := count + 1)
    return dropped


def make_pupil(sim: str, policy: str) -> Pupil:
    """Of one worker process."""
    bench = make_bench(sim, policy)
    return Pupil(bench, find_demonstrator(sim), labeler_of(sim, bench.sim.action_spec))


def _require_same(data: DemonstrationSet, source: str) -> DemonstrationSet:
    if data.source != source:
        raise FailsightError(f"{data.folder} holds other recordings ({data.source}); choose another folder.")
    return data


def _tickets(parts: Path, first: int, keys: Sequence[EpisodeKey], who: str) -> list[DemonstrationTicket]:
    """Their files are named after who acts in which episode, so that another plan's parts are not taken for these."""
    marks = [zlib.crc32(repr((who, key)).encode()) for key in keys]
    names = [f"{first + i:06d}-{mark:08x}.npz" for i, mark in enumerate(marks)]
    return [DemonstrationTicket(first + i, key, parts / names[i]) for i, key in enumerate(keys)]


def _read(teacher: Teacher, tickets: Sequence[DemonstrationTicket], optional: Sequence[str]) -> Iterator[Demonstration]:
    """`optional`: arrays to take where they are; a policy's own episodes have no places, and a data set is uniform."""
    instructions = {task.id: task.instruction for task in teacher.sim.tasks()}
    cameras = [name for name, _, _ in teacher.sim.observation_spec.cameras]
    for ticket in tickets:
        with np.load(ticket.path) as part:
            yield Demonstration(
                name=f"{ticket.key.task}-{ticket.number}",
                instruction=instructions[ticket.key.task],
                scenario=ticket.key.task,
                images={name: part[f"images.{name}"] for name in cameras},
                states=part["states"],
                actions=part["chunks"][:, 0],
                **{name: part[name] for name in optional if name in part},
            )


def _demonstrate(teacher: Teacher, ticket: DemonstrationTicket) -> int:
    """Write one part; returns how many tries failed."""
    shown, failures = teacher.show(ticket.key)
    unknown = np.full(len(shown.states), np.nan, np.float32)
    arrays = {f"images.{name}": pixels for name, pixels in shown.images.items()}
    arrays |= {"states": shown.states, "chunks": shown.chunks, "fails": unknown, "failing": unknown, "left": unknown}
    _write(ticket.path, arrays if shown.places is None else arrays | {"places": shown.places})
    return failures


def _correct(pupil: Pupil, ticket: DemonstrationTicket) -> int:
    """The policy acts; the expert says what it would have done."""
    bench, stride = pupil.bench, pupil.demonstrator.steps_per_frame
    loop = Loop(bench.sim, bench.policy)
    frames: list[Mapping[str, Array]] = []
    states: list[Array] = []
    actions: list[Array] = []
    loop.start(ticket.key)
    while not loop.done:
        if len(states) % stride == 0:
            frames.append(_look(pupil))
        step, verdict = loop.perceive()
        states.append(step.state)
        actions.append(step.action)
        loop.act(step, verdict)
    if loop.trace.outcome == Outcome.ERRORED:
        raise FailsightError(
            f"Episode {ticket.number} of {ticket.key.task} errored and teaches nothing: {loop.trace.error}."
        )
    success = loop.trace.outcome == Outcome.SUCCESS
    label = pupil.labeler.label(ticket.key.task, np.stack(states), np.stack(actions), loop.trace.events, success)
    left = label.time_to_failure[::stride].astype(np.float32)
    labels = {
        "fails": np.full(len(left), float(not success), np.float32),
        "left": left,
        "failing": (left / bench.sim.action_spec.rate_hz <= HORIZON_S).astype(np.float32),
    }
    _write(ticket.path, {name: np.stack([frame[name] for frame in frames]) for name in frames[0]} | labels)
    return 0


def _look(pupil: Pupil) -> Mapping[str, Array]:
    sim = pupil.bench.sim
    observation = sim.observe()
    images = {f"images.{c}": observation[f"observation.images.{c}"] for c, _, _ in sim.observation_spec.cameras}
    return {**images, "states": observation["observation.state"], "chunks": pupil.demonstrator.chunk(sim)}


def _write(path: Path, arrays: Mapping[str, Array]) -> None:
    partial_path = path.with_suffix(".partial.npz")
    with open(partial_path, "wb") as file:
        np.savez(file, **dict[str, Any](arrays))
    partial_path.replace(path)
