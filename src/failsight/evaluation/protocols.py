"""Protocols as data: who is trained on, who is tested, and up to which step a score may look.

| name | split | score |
|---|---|---|
| actprobe_seen | 70 / 15 / 15 of every task and outcome, counts rounded down (rare failures land in the test) | maximum up to 25 % of the horizon |
| actprobe_unseen | 3 of 10 tasks held out | the same |
| safe | a third of the tasks held out, 65 / 35 within the others | maximum up to the shortest episode of the task |
| folds | five stratified folds, every episode scored once | all of them |
| leave_tasks_out | every task scored by a model that has not seen it | all of them |
| new_tasks | up to five groups of tasks: each left out alone, then every two of them | for thresholds on new tasks |

Sources: SAFE (arXiv 2506.09937), ActProbe (arXiv 2606.08508), as re-worded in their code. Where a published protocol reads
the cut-off from test episodes (ActProbe: longest, SAFE: shortest), the same cut is offered beside one declared before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.rng import keyed_rng
from failsight.core.types import Array

VALIDATE = 0.15
"""Share of the training part that is kept for the probability map."""
_LEAST_FAILURES = 20
"""Held-out tasks are drawn again until they hold that many failures (or the best of 50 draws)."""


class EpisodeFacts(NamedTuple):
    """What a split may look at."""

    task: Array
    failed: Array
    length: Array
    horizon: int
    timed_out: Array
    """(N,) bool: failed at the horizon; a failure that ends before it contradicts its label."""
    condition: Array | None = None
    """(N,) perturbation of every episode, where known."""


def select_facts(facts: EpisodeFacts, rows: Array) -> EpisodeFacts:
    """Facts of some episodes: `rows` are indices (M,) or a mask (N,) bool."""
    return EpisodeFacts(
        task=facts.task[rows],
        failed=facts.failed[rows],
        length=facts.length[rows],
        horizon=facts.horizon,
        timed_out=facts.timed_out[rows],
        condition=None if facts.condition is None else facts.condition[rows],
    )


class Split(NamedTuple):
    """Indices of disjoint episodes."""

    train: Array
    validate: Array
    seen: Array
    """Test episodes of training tasks."""
    unseen: Array
    """Test episodes of other tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How to split; `seeds` splits are made."""

    name: str
    kind: Literal["holdout", "folds", "leave_tasks_out", "new_tasks"]
    seeds: int = 5
    train: float = 0.85
    """Share of every seen task's episodes that may be trained on (validation included)."""
    truncate: bool = False
    """Round training counts down, as ActProbe does."""
    held_out: float = 0.0
    """Share of tasks that are held out."""
    held_out_as_published: tuple[tuple[int, ...], ...] = ()
    """Task numbers that the published code's shuffle holds out at seeds 0, 1, ... of a ten-task suite."""
    test_validates: bool = False
    """Validation comes on top of the training share instead of out of it."""


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(name="actprobe_seen", kind="holdout", train=0.70, truncate=True, test_validates=True),
        Protocol(
            name="actprobe_unseen",
            kind="holdout",
            train=1.0,
            held_out=0.3,
            held_out_as_published=((4, 5, 7), (2, 6, 9), (0, 4, 5), (0, 2, 6), (4, 5, 7)),
        ),
        Protocol(name="safe", kind="holdout", train=0.65, held_out=1 / 3),
        Protocol(name="folds", kind="folds"),
        Protocol(name="leave_tasks_out", kind="leave_tasks_out"),
        Protocol(name="new_tasks", kind="new_tasks"),
    )
}


def splits(protocol: Protocol, facts: EpisodeFacts) -> list[Split]:
    """All splits of a protocol; keyed, so that they are the same everywhere.

    Raises EpisodeDataError when there are too few tasks to hold one out.
    """
    if protocol.kind == "folds":
        return _folds(protocol, facts)
    if protocol.kind == "leave_tasks_out":
        return _leave_tasks_out(facts)
    if protocol.kind == "new_tasks":
        return _new_tasks(facts)
    return [_holdout(protocol, facts, seed) for seed in range(protocol.seeds)]


def _strata(facts: EpisodeFacts, rows: Array) -> list[Array]:
    keys = [f"{t}|{int(f)}" for t, f in zip(facts.task[rows], facts.failed[rows], strict=True)]
    labels = np.array(keys)
    return [rows[labels == label] for label in np.unique(labels)]


def _holdout(protocol: Protocol, facts: EpisodeFacts, seed: int) -> Split:
    everything = np.arange(len(facts.task))
    away = np.isin(facts.task, _held_out(protocol, facts, seed))
    train, validate, seen = [], [], []
    for i, rows in enumerate(_strata(facts, everything[~away])):
        order = keyed_rng(seed, protocol.name, i).permutation(rows)
        offset = float(keyed_rng(seed, protocol.name, "offset", i).random())
        kept = _count(protocol.train * len(rows), protocol.truncate, offset)
        if protocol.test_validates:
            extra = _count(VALIDATE * len(rows), protocol.truncate, offset)
            train.append(order[:kept])
            validate.append(order[kept : kept + extra])
            seen.append(order[kept + extra :])
        else:
            held = _count(VALIDATE * kept, False, offset)
            train.append(order[held:kept])
            validate.append(order[:held])
            seen.append(order[kept:])
    chosen, kept_out, test = (np.sort(np.concatenate(part)) for part in (train, validate, seen))
    return Split(chosen, kept_out, test, everything[away])


def _count(amount: float, truncate: bool, offset: float) -> int:
    """Rounded down, or up with the probability of the remainder, so that rare outcomes are shared out fairly."""
    return int(amount + 1e-9) if truncate else int(np.floor(amount + offset))


def _held_out(protocol: Protocol, facts: EpisodeFacts, seed: int) -> Array:
    tasks = np.unique(facts.task)
    count = round(protocol.held_out * len(tasks))
    if not protocol.held_out:
        return tasks[:0]
    if len(tasks) < 3:
        raise EpisodeDataError(f"Holding out tasks needs at least 3 of them; the run has {len(tasks)}.")
    if protocol.held_out_as_published and len(tasks) == 10:
        return tasks[list(protocol.held_out_as_published[seed])]
    best, most = tasks[:0], -1
    for draw in range(50):
        chosen = keyed_rng(seed, protocol.name, "tasks", draw).choice(tasks, max(1, count), replace=False)
        failures = int(facts.failed[np.isin(facts.task, chosen)].sum())
        if failures >= _LEAST_FAILURES:
            return np.asarray(chosen)
        if failures > most:
            best, most = np.asarray(chosen), failures
    return best


def _folds(protocol: Protocol, facts: EpisodeFacts, count: int = 5) -> list[Split]:
    fold = np.zeros(len(facts.task), int)
    for i, rows in enumerate(_strata(facts, np.arange(len(facts.task)))):
        rng = keyed_rng("folds", i)
        fold[rng.permutation(rows)] = (np.arange(len(rows)) + int(rng.integers(count))) % count
    return [
        _train_on(facts, np.flatnonzero(fold != k), np.flatnonzero(fold == k), k, unseen=False) for k in range(count)
    ]


def _leave_tasks_out(facts: EpisodeFacts, most: int = 10) -> list[Split]:
    tasks = np.unique(facts.task)
    groups = task_groups(facts, len(tasks) if len(tasks) <= most else -(-len(tasks) // 2))
    return [without_tasks(facts, group, k) for k, group in enumerate(groups)]


def task_groups(facts: EpisodeFacts, count: int) -> list[Array]:
    """The tasks in `count` keyed groups, each (G,) of names. Raises EpisodeDataError with fewer than 3 tasks."""
    tasks = np.unique(facts.task)
    if len(tasks) < 3:
        raise EpisodeDataError(f"Leaving tasks out needs at least 3 of them; the run has {len(tasks)}.")
    return np.array_split(keyed_rng("leave_tasks_out").permutation(tasks), min(count, len(tasks)))


def without_tasks(facts: EpisodeFacts, tasks: Array, key: int) -> Split:
    """Train on all other tasks, test on `tasks` (G,)."""
    away = np.isin(facts.task, tasks)
    return _train_on(facts, np.flatnonzero(~away), np.flatnonzero(away), key, unseen=True)


NEW_TASK_GROUPS = 5


def _new_tasks(facts: EpisodeFacts) -> list[Split]:
    """Every group left out alone (the model that meets it), then every two of them (what calibrates the threshold of one
    on the other, neither having been seen).
    """
    groups = task_groups(facts, NEW_TASK_GROUPS)
    alone = [without_tasks(facts, group, k) for k, group in enumerate(groups)]
    pairs = [(i, j) for i in range(len(groups)) for j in range(i)]
    both = [without_tasks(facts, np.concatenate([groups[i], groups[j]]), 100 + k) for k, (i, j) in enumerate(pairs)]
    return alone + both


def _train_on(facts: EpisodeFacts, rows: Array, test: Array, key: int, unseen: bool) -> Split:
    train, validate = [], []
    for i, stratum in enumerate(_strata(facts, rows)):
        rng = keyed_rng("validate", key, i)
        order, offset = rng.permutation(stratum), float(rng.random())
        held = int(np.floor(VALIDATE * len(stratum) + offset))
        train.append(order[held:])
        validate.append(order[:held])
    nothing = np.zeros(0, int)
    parts = np.sort(np.concatenate(train)), np.sort(np.concatenate(validate))
    return Split(*parts, nothing, test) if unseen else Split(*parts, test, nothing)


_LONG = 60


def headline_cut(facts: EpisodeFacts) -> str:
    """Where a log is judged: at 25 % of a horizon of 60 steps or more, else at the shortest episode of the task.

    A quarter of a short horizon is one or two steps after which nothing has been seen yet.
    """
    return "25" if facts.horizon >= _LONG else "early"


def declared_cut(facts: EpisodeFacts, share: float) -> Array:
    """(N,) steps that may be looked at: a share of the declared horizon, the same for every episode."""
    return np.full(len(facts.length), max(1, int(share * facts.horizon)))


def shortest_cut(facts: EpisodeFacts) -> Array:
    """SAFE's: (N,) steps, length of the shortest episode of the task, over all episodes, test included."""
    return np.array([facts.length[facts.task == task].min() for task in facts.task])


def moment_steps(facts: EpisodeFacts, moment: str) -> Array:
    """(N,) steps seen at a moment: `early` (shortest episode of the task), `25` or `50` (per cent of the horizon)."""
    return shortest_cut(facts) if moment == "early" else declared_cut(facts, int(moment) / 100)


def longest_test_cut(facts: EpisodeFacts, test: Array, share: float) -> Array:
    """ActProbe's: (N,) steps, a share of the longest episode of the task among `test` (M,), indices.

    It leaks whether the test holds a failure.
    """
    cut = declared_cut(facts, share)
    for task in np.unique(facts.task[test]):
        mine = test[facts.task[test] == task]
        cut[mine] = max(1, int(share * facts.length[mine].max()))
    return cut


def up_to(scores: Array, cut: int, first: int) -> float:
    """Largest of `scores` (T,) from step `first` to before `cut`; the last step there is when the episode is shorter.

    NaN when the detector could not tell at any of them.
    """
    end = min(cut, len(scores))
    return float(np.fmax.reduce(scores[min(first, end - 1) : end]))
