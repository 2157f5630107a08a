"""What a data set gives away without anyone looking at the robot, and what in it cannot be decided.

Every row is a question a reviewer would ask, answered with a figure: is it the clock, is it the task, does the length
give the outcome away, do labels contradict themselves, do episodes repeat, would a cut-off taken from test data help?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from failsight.core.types import Array
from failsight.evaluation.detection import auc, within_auc
from failsight.evaluation.judging import LEAST_STEPS
from failsight.evaluation.protocols import (
    PROTOCOLS,
    EpisodeFacts,
    headline_cut,
    longest_test_cut,
    moment_steps,
    select_facts,
    shortest_cut,
    splits,
)
from failsight.predictors.baselines import group_rates
from failsight.predictors.dataset import LabelledSequence

_CLOCK_MATTERS = 0.55
"""AUC from which elapsed time alone is worth a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """One question, its figure, and what follows."""

    name: str
    value: float | None
    unit: str
    leaks: bool
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {k: getattr(self, k) for k in ("name", "value", "unit", "leaks", "word", "sentence")}

    @property
    def word(self) -> str:
        """`leaks`, `clean`, or `unknown` where the data cannot answer."""
        return "leaks" if self.leaks else "unknown" if self.value is None else "clean"


def find_leaks(sequences: Sequence[LabelledSequence], facts: EpisodeFacts, seeds: Sequence[int]) -> list[Leak]:
    """All rows for a set of episodes; `seeds` (N,) are their initial states' seeds."""
    return [
        _clock_whole(facts),
        _clock_at(facts, 0.25),
        _clock_at(facts, 0.50),
        _task_prior(facts),
        *(
            []
            if facts.condition is None or len(set(facts.condition)) < 2
            else [_condition_prior(facts, facts.condition)]
        ),
        _length(facts),
        _contradictions(facts),
        _duplicates(sequences, facts, seeds),
        _cut(facts, "cut-off from the longest test episode", longest_test_cut(facts, np.arange(len(facts.task)), 0.25)),
        _cut(facts, "cut-off from the shortest episode of the task", shortest_cut(facts)),
        _short(facts),
    ]


def _points(value: float) -> float | None:
    return 100 * float(value) if np.isfinite(value) else None


def _shown(value: float) -> str:
    return f"{100 * value:.1f}" if np.isfinite(value) else "not defined (one outcome only)"


def _clock_whole(facts: EpisodeFacts) -> Leak:
    value = auc(facts.length.astype(float), facts.failed)
    return Leak(
        name="clock, whole episodes",
        value=_points(value),
        unit="AUC",
        leaks=bool(value > _CLOCK_MATTERS),
        sentence=f"Counting steps until the end scores {_shown(value)}: successes stop early. "
        "Never compare scores over whole episodes.",
    )


def _clock_at(facts: EpisodeFacts, share: float) -> Leak:
    cut = max(1, int(share * facts.horizon))
    finished = int((facts.length < cut).sum())
    value = auc(np.minimum(facts.length, cut).astype(float), facts.failed)
    return Leak(
        name=f"clock, {share:.0%} of the horizon",
        value=_points(value),
        unit="AUC",
        leaks=bool(value > _CLOCK_MATTERS),
        sentence=f"{finished} of {len(facts.task)} episodes have ended by step {cut}; with them in the comparison the clock "
        f"scores {_shown(value)}, among episodes still running 50 by construction.",
    )


def _task_prior(facts: EpisodeFacts) -> Leak:
    """The row `task_prior` of every table: rates of the training folds, at the headline moment, episodes still running."""
    value = _folded(facts, facts.task)
    return Leak(
        name="task prior",
        value=_points(value),
        unit="AUC",
        leaks=bool(value > _CLOCK_MATTERS),
        sentence=f"Knowing only which task it is scores {_shown(value)}; a pooled figure on known tasks must beat that.",
    )


def _condition_prior(facts: EpisodeFacts, condition: Array) -> Leak:
    """The row `condition_prior`: failure rates of the perturbations alone."""
    value = _folded(facts, condition)
    return Leak(
        name="condition prior",
        value=_points(value),
        unit="AUC",
        leaks=bool(value > _CLOCK_MATTERS),
        sentence=f"Knowing only the perturbation scores {_shown(value)}; a pooled figure must beat that too.",
    )


def _folded(facts: EpisodeFacts, group: Array) -> float:
    """Mean AUC over the five folds of a constant failure rate per group, among episodes running at the headline moment."""
    judged = facts.length >= LEAST_STEPS  # as in every table
    facts, group = select_facts(facts, judged), group[judged]
    running = facts.length >= moment_steps(facts, headline_cut(facts))
    values = []
    for split in splits(PROTOCOLS["folds"], facts):
        rates = group_rates(group[split.train], facts.failed[split.train])
        test = split.seen[running[split.seen]]
        values.append(auc(np.array([rates.of(str(g)) for g in group[test]]), facts.failed[test]))
    kept = [v for v in values if np.isfinite(v)]
    return float(np.mean(kept)) if kept else float("nan")


def _length(facts: EpisodeFacts) -> Leak:
    value = within_auc(facts.length.astype(float), facts.failed, facts.task)
    return Leak(
        name="outcome readable from the length",
        value=_points(value),
        unit="AUC within task",
        leaks=bool(value > 0.7 or value < 0.3),
        sentence=f"Within a task the final length alone scores {_shown(value)}; anything normalised by it has read the label.",
    )


def _contradictions(facts: EpisodeFacts) -> Leak:
    odd = facts.failed & ~facts.timed_out
    tasks = ", ".join(f"{task} {int(odd[facts.task == task].sum())}" for task in np.unique(facts.task[odd]))
    return Leak(
        name="failures that end before the horizon",
        value=float(odd.sum()),
        unit="episodes",
        leaks=bool(odd.any()),
        sentence=f"{int(odd.sum())} of {int(facts.failed.sum())} failures stop before step {facts.horizon}"
        + (f" ({tasks})" if tasks else "")
        + ". Unless the robot was stopped on purpose, their labels contradict their length: report with and without.",
    )


def _duplicates(sequences: Sequence[LabelledSequence], facts: EpisodeFacts, seeds: Sequence[int]) -> Leak:
    states = [f"{s.task}|{seed}" for s, seed in zip(sequences, seeds, strict=True)]
    firsts = [f"{s.task}|{np.asarray(s.signals[: min(3, len(s.signals))]).tobytes().hex()}" for s in sequences]
    same = max(len(states) - len(set(states)), len(firsts) - len(set(firsts)))
    return Leak(
        name="repeated initial states",
        value=float(same),
        unit="episodes",
        leaks=same > 0,
        sentence=f"{same} episodes start like another one of their task (same seed, or the same first three steps); "
        "keep such twins on one side of every split.",
    )


def _cut(facts: EpisodeFacts, name: str, cut: Array) -> Leak:
    value = auc(np.minimum(facts.length, cut).astype(float), facts.failed)
    return Leak(
        name=name,
        value=_points(value),
        unit="AUC",
        leaks=bool(abs(value - 0.5) > _CLOCK_MATTERS - 0.5),
        sentence=f"With this published cut-off the clock alone scores {_shown(value)}, because the cut itself knows the test "
        "episodes; a horizon declared before the run does not.",
    )


def _short(facts: EpisodeFacts) -> Leak:
    count = int((facts.length < 4).sum())
    return Leak(
        name="episodes of fewer than 4 steps",
        value=float(count),
        unit="episodes",
        leaks=count > 0,
        sentence=f"{count} episodes are so short that they set the shortest-episode cut of their task for everybody.",
    )
