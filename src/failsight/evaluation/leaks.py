"""What a data set gives away without anyone looking at the robot, and what in it cannot be decided.

Every row is a question a reviewer would ask, answered with a figure: is it the clock, is it the task, does the length
give the outcome away, do labels contradict themselves, do episodes repeat, would a cut-off taken from test data help?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from failsight.core.types import Array
from failsight.evaluation.detection import auc, within_auc
from failsight.evaluation.protocols import EpisodeFacts, longest_test_cut, shortest_cut
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
        return {k: getattr(self, k) for k in ("name", "value", "unit", "leaks", "sentence")}


def find_leaks(sequences: Sequence[LabelledSequence], facts: EpisodeFacts, seeds: Sequence[int]) -> list[Leak]:
    """All rows for a set of episodes; `seeds` (N,) are their initial states' seeds."""
    return [
        _clock_whole(facts),
        _clock_at(facts, 0.25),
        _clock_at(facts, 0.50),
        _task_prior(facts),
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
    """Each episode's task rate from the other episodes."""
    score = np.zeros(len(facts.task))
    base = facts.failed.mean()
    for task in np.unique(facts.task):
        rows = facts.task == task
        others = facts.failed[rows].sum() - facts.failed[rows]
        score[rows] = (others + 2 * base) / (rows.sum() - 1 + 2)
    value = auc(score, facts.failed)
    return Leak(
        name="task prior",
        value=_points(value),
        unit="AUC",
        leaks=bool(value > _CLOCK_MATTERS),
        sentence=f"Knowing only which task it is scores {_shown(value)}; a pooled figure on known tasks must beat that.",
    )


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


def headline(figures: Mapping[str, Any], metric: str, controls: Mapping[str, Mapping[str, Any]]) -> tuple[bool, str]:
    """Whether a figure beats clock and task prior beyond its interval, and the sentence that says so.

    Args: figures: of the detector; metric: its key; controls: figures of `clock` and `task_prior`.
    """
    row = figures[metric]
    bars = {name: c[metric]["value"] for name, c in controls.items() if metric in c and c[metric]["value"] is not None}
    shown = row["low"] is not None and all(row["low"] > bar for bar in bars.values()) and bool(bars)
    against = ", ".join(f"{name.replace('_', ' ')} {bar:.1f}" for name, bar in bars.items())
    value = "no data" if row["value"] is None else f"{row['value']:.1f}"
    span = "" if row["low"] is None else f" [{row['low']:.1f}, {row['high']:.1f}]"
    return shown, f"{value}{span} against {against}" + ("" if shown else ": not shown")
