"""`failsight demonstrate`: a simulator's expert recorded by worker processes, as files in the form that fits; resumable.

A base with one front camera becomes Mobile-VLA files, everything else a data set of `episodes.demonstrations`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from failsight.episodes.demonstrations import Demonstration
from failsight.episodes.formats.mobile_vla import CAMERA, files_of, is_recordable, write_episode
from failsight.recipes.demonstrate.data_set import Curriculum, demonstration_data
from failsight.recipes.demonstrate.teacher import DemonstrationTicket, Teacher, make_teacher, require_only
from failsight.runtime.pool import run_pool
from failsight.workflows.plans import choose_tasks


def demonstrate(
    sim: str,
    folder: Path,
    episodes: int,
    *,
    seed: int,
    tasks: Sequence[str] = (),
    workers: int = 2,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Write `episodes` demonstrations to `folder`; what is there already is kept.

    Returns how many were dropped because they failed (another seed replaces them). Raises UnknownNameError for a task,
    FailsightError where nobody demonstrates and when the folder holds files of another plan.
    """
    teacher, chosen = make_teacher(sim), choose_tasks(sim, tasks)
    if not is_recordable(teacher.sim.action_spec, teacher.sim.observation_spec):
        plan = Curriculum(sim=sim, demonstrations=episodes, seed=seed, tasks=tuple(tasks))
        return demonstration_data(plan, folder, workers, progress).dropped
    keys = [teacher.demonstrator.key(seed, i, chosen) for i in range(episodes)]
    tickets = [DemonstrationTicket(i, key, folder / f"episode_{i:05d}_{key.task}.h5") for i, key in enumerate(keys)]
    require_only(folder, files_of(folder), tickets)
    missing = [ticket for ticket in tickets if not ticket.path.is_file()]
    done, dropped = len(tickets) - len(missing), 0
    for count in range(1, done + 1):
        progress(count)
    for _, failures in run_pool(partial(make_teacher, sim), _record, missing, workers):
        done, dropped = done + 1, dropped + failures
        progress(done)
    return dropped


def _record(teacher: Teacher, ticket: DemonstrationTicket) -> int:
    """Write one file; returns how many tries failed."""
    shown, failures = teacher.show(ticket.key)
    item = Demonstration(
        name=f"{ticket.key.task}-{ticket.key.episode}",
        instruction=teacher.sim.task.instruction,
        scenario=ticket.key.task,
        images={CAMERA: shown.images[CAMERA]},
        states=shown.states,
        actions=shown.chunks[:, 0],
    )
    write_episode(ticket.path, item, teacher.sim.observation_spec.state)
    return failures
