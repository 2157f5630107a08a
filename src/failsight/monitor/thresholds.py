"""Which threshold holds on which task: its own with 20 successes, else the pooled one; none on an unknown task.

A pooled threshold is valid on average over the tasks it was calibrated on, not on each of them, and says nothing about
a task it has never seen: there the monitor calls itself uncalibrated until it has watched 10 successes of that task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from failsight.monitor.calibration import Calibration, conformal_threshold

OWN_SUCCESSES = 20
"""Calibration successes from which a task gets its own threshold."""
NEW_SUCCESSES = 10
"""Successes of an unknown task after which it is calibrated on them alone."""


class Choice(NamedTuple):
    """The threshold of one task and where it comes from."""

    threshold: float
    basis: Literal["task", "pooled", "uncalibrated"]
    note: str


@dataclass(slots=True, kw_only=True)
class Thresholds:
    """All thresholds of a bundle."""

    pooled: Calibration
    tasks: dict[str, Calibration] = field(default_factory=dict)
    known: dict[str, int] | None = None
    """Calibration successes of every task of the training data; None: one simulator's tasks, all pooled."""
    watched: dict[str, list[float]] = field(default_factory=dict)
    """Statistics of watched successes of unknown tasks."""

    @staticmethod
    def fixed(threshold: float) -> Thresholds:
        """One threshold for every task that promises nothing: for tests and timings."""
        return Thresholds(pooled=Calibration(threshold=threshold, alpha=1.0, successes=0, alpha_upper=1.0))

    def choose(self, task: str) -> Choice:
        """The threshold for an episode of `task`; infinite where there is none yet."""
        if task in self.tasks:
            return Choice(self.tasks[task].threshold, "task", "")
        if self.known is None:
            return Choice(self.pooled.threshold, "pooled", "")
        if task in self.known:
            note = f"pooled threshold: {task} has {self.known[task]} calibration successes, {OWN_SUCCESSES} give it its own"
            return Choice(self.pooled.threshold, "pooled", note)
        missing = NEW_SUCCESSES - len(self.watched.get(task, []))
        return Choice(float("inf"), "uncalibrated", f"uncalibrated: {missing} more successes of {task} are needed")

    def watch(self, task: str, statistic: float) -> None:
        """Take in the statistic of one success of a task that has no threshold of its own.

        An unknown task becomes calibrated with its tenth (and again with each further one).
        """
        if self.known is None or task in self.known:
            return
        seen = self.watched.setdefault(task, [])
        seen.append(statistic)
        if len(seen) >= NEW_SUCCESSES and self.pooled.alpha >= 1 / (len(seen) + 1):
            self.tasks[task] = conformal_threshold(seen, self.pooled.alpha)

    def as_dict(self) -> dict[str, Any]:
        """JSON form; the pooled calibration's fields stand at the top."""
        tasks = {task: calibration.as_dict() for task, calibration in self.tasks.items()}
        return {**self.pooled.as_dict(), "tasks": tasks, "known": self.known, "watched": self.watched}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Thresholds:
        """Inverse of `as_dict`; a file without the later fields is one pooled threshold."""
        rest = dict(data)
        tasks = {task: Calibration(**c) for task, c in rest.pop("tasks", {}).items()}
        known, watched = rest.pop("known", None), dict(rest.pop("watched", {}))
        return Thresholds(pooled=Calibration(**rest), tasks=tasks, known=known, watched=watched)


def fit_thresholds(
    statistics: Sequence[float], tasks: Sequence[str], alpha: float, known: Iterable[str] = ()
) -> Thresholds:
    """Thresholds from the statistics of successful calibration episodes and their tasks.

    `known` are the tasks of the training data: one of them without a calibration success still counts as known.

    Raises CalibrationError when all of them together are too few for `alpha`.
    """
    groups: dict[str, list[float]] = {task: [] for task in known}
    for task, value in zip(tasks, statistics, strict=True):
        groups.setdefault(task, []).append(value)
    enough = {task: values for task, values in groups.items() if len(values) >= OWN_SUCCESSES}
    return Thresholds(
        pooled=conformal_threshold(statistics, alpha),
        tasks={task: conformal_threshold(values, alpha) for task, values in enough.items()},
        known={task: len(values) for task, values in groups.items()},
    )
