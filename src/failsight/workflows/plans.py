"""Which episodes, under which perturbations: keyed plans for every simulator."""

from __future__ import annotations

from collections.abc import Sequence

from failsight.core.errors import UnknownNameError, told
from failsight.core.types import EpisodeKey
from failsight.workflows.wiring import find_sim, make_sim


def make_plan(sim: str, tasks: Sequence[str], seeds: Sequence[int], trials: int, mix: str) -> tuple[EpisodeKey, ...]:
    """Episodes of a simulator; no tasks means all of them. Raises UnknownNameError for anything it does not know."""
    return find_sim(sim).keys(choose_tasks(sim, tasks), seeds, trials, mix)


def choose_tasks(sim: str, tasks: Sequence[str]) -> list[str]:
    """These tasks of a simulator, all when none is given. Raises UnknownNameError with the nearest ones."""
    known = tasks_of(sim)
    for name in tasks:
        if name not in known:
            raise UnknownNameError(f"{sim} task", name, known)
    return list(tasks) or known


def tasks_of(sim: str) -> list[str]:
    """Ids of all tasks a simulator can set, in its order."""
    named = find_sim(sim).tasks
    if named:
        return list(named)
    env = make_sim(sim)
    with told(f"Listing the tasks of {sim} failed"):
        names = [task.id for task in env.tasks()]
        env.close()
    return names
