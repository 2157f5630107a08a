"""Which threshold holds on which task: its own with 20 successes, else the pooled one; a provisional one on a new task.

A pooled threshold is valid on average over the tasks it was calibrated on, not on each of them, and says nothing about
a task it has never seen: there the provisional threshold holds (`monitor.provisional`; where a bundle has none, the
monitor calls itself uncalibrated) until it has watched 10 successes of that task.

What is learned in use keeps its promise because it is learned once, before it can act: an alarm stops the successes
with the highest statistics, so those that come later are no fair sample, and a threshold that follows them walks down
(to 0.34 false alarms instead of 0.10 over 400 episodes). The first ten successes that nobody cut short set it for good.
An episode that was stopped, taken over or otherwise changed before that counts as a success above all others, since
nobody knows how it would have ended; then the threshold is also never below the one that was in force.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from failsight.core.foreign import read_count, read_number, read_text
from failsight.monitor.calibration import Calibration, calibration_rank, conformal_threshold
from failsight.monitor.provisional import MOST, Provisional

OWN_SUCCESSES = 20
"""Calibration successes from which a task gets its own threshold."""
NEW_SUCCESSES = 10
"""Successes of an unknown task after which it is calibrated on them alone."""


class Choice(NamedTuple):
    """The threshold of one task and where it comes from."""

    threshold: float
    basis: Literal["task", "pooled", "provisional", "uncalibrated"]
    note: str


@dataclass(slots=True, kw_only=True)
class Thresholds:
    """All thresholds of a bundle."""

    pooled: Calibration
    tasks: dict[str, Calibration] = field(default_factory=dict)
    known: dict[str, int] | None = None
    """Calibration successes of every task of the training data; None: one simulator's tasks, all pooled."""
    watched: dict[str, list[float]] = field(default_factory=dict)
    """Statistics of watched successes of unknown tasks; +inf for an episode that was cut short."""
    learned: dict[str, Calibration] = field(default_factory=dict)
    """Thresholds learned in use; they never change again."""
    provisional: Provisional | None = None
    """For tasks that were never seen; None: they have no threshold at first."""
    levels: dict[str, list[float]] = field(default_factory=dict)
    """Of the first episodes of unknown tasks, whatever came of them; see `monitor.provisional`."""

    @staticmethod
    def fixed(threshold: float) -> Thresholds:
        """One threshold for every task that promises nothing: for tests and timings."""
        return Thresholds(pooled=Calibration(threshold=threshold, alpha=1.0, successes=0, alpha_upper=1.0))

    def choose(self, task: str) -> Choice:
        """The threshold for an episode of `task`; infinite where there is none yet."""
        if task in self.tasks:
            return _own(self.tasks[task], task)
        if task in self.learned:
            return _own(self.learned[task], task)
        if self.known is None:
            return Choice(self.pooled.threshold, "pooled", "")
        if task in self.known:
            note = f"pooled threshold: {task} has {self.known[task]} calibration successes, {OWN_SUCCESSES} give it its own"
            return Choice(self.pooled.threshold, "pooled", note)
        missing = self.missing(task)
        if self.provisional is not None:
            limit = self.provisional.threshold(self.levels.get(task, ()))
            note = f"provisional threshold: {missing} more successes of {task} calibrate it"
            return Choice(limit, "provisional", note)
        return Choice(float("inf"), "uncalibrated", f"uncalibrated: {missing} more successes of {task} are needed")

    def missing(self, task: str) -> int:
        """How many more whole successes an unknown task needs before it is calibrated, at least 1."""
        seen = self.watched.get(task, [])
        whole, cut = sum(map(math.isfinite, seen)), sum(value == math.inf for value in seen)
        more = max(0, NEW_SUCCESSES - whole)
        while calibration_rank(whole + more + cut, self.pooled.alpha) > whole + more:
            more += 1
        return max(1, more)

    def watch(self, task: str, statistic: float, *, censored: bool = False) -> None:
        """Take in the statistic of one success of a task that has no threshold of its own.

        Args: censored: the episode was stopped, taken over or changed, however it ended: what it would have been
        without that is not known, so it counts as a success above all others.
        """
        if self.known is None or task in self.known or task in self.tasks or task in self.learned:
            return
        seen = self.watched.setdefault(task, [])
        seen.append(math.inf if censored or math.isnan(statistic) else statistic)
        if sum(map(math.isfinite, seen)) < NEW_SUCCESSES:
            return
        rank = calibration_rank(len(seen), self.pooled.alpha)
        if rank <= len(seen) and math.isfinite(sorted(seen)[rank - 1]):
            in_force, found = self.choose(task).threshold, conformal_threshold(seen, self.pooled.alpha)
            if math.inf in seen and math.isfinite(in_force):
                found = replace(found, threshold=max(found.threshold, in_force))
            self.learned[task] = found

    def notice(self, task: str, level: float) -> None:
        """Take in the level of one episode of an unknown task, whose outcome need not be known."""
        if self.known is None or task in self.known or task in self.tasks or not math.isfinite(level):
            return
        seen = self.levels.setdefault(task, [])
        if len(seen) < MOST:
            seen.append(level)

    def adapted(self) -> dict[str, Any]:
        """JSON form of what was learned in use, kept apart from `as_dict`; null for an infinite statistic."""
        return {task: self._learned_on(task) for task in sorted({*self.watched, *self.levels})}

    def _learned_on(self, task: str) -> dict[str, Any]:
        seen = self.watched.get(task, [])
        return {
            "watched": [value if math.isfinite(value) else None for value in seen if value > -math.inf],
            "too_short": sum(value == -math.inf for value in seen),
            "levels": self.levels.get(task, []),
            "calibration": self.learned[task].as_dict() if task in self.learned else None,
        }

    def adopt(self, data: Mapping[str, Any], where: str) -> None:
        """Inverse of `adapted`. Raises EpisodeDataError naming the key."""
        for task, entry in data.items():
            seen = [math.inf if v is None else read_number(v, f"{where}, {task}, watched") for v in entry["watched"]]
            seen += [-math.inf] * read_count(entry["too_short"], f"{where}, {task}, too_short", 0, 10**6)
            self.watched[task] = seen
            self.levels[task] = [read_number(v, f"{where}, {task}, levels") for v in entry.get("levels", [])][:MOST]
            if entry["calibration"] is not None:
                self.learned[task] = Calibration.from_dict(entry["calibration"], f"{where}, {task}")

    def as_dict(self) -> dict[str, Any]:
        """JSON form of what was fitted; the pooled calibration's fields stand at the top."""
        tasks = {task: calibration.as_dict() for task, calibration in self.tasks.items()}
        provisional = None if self.provisional is None else self.provisional.as_dict()
        return {**self.pooled.as_dict(), "tasks": tasks, "known": self.known, "provisional": provisional}

    @staticmethod
    def from_dict(data: Mapping[str, Any], where: str = "calibration") -> Thresholds:
        """Inverse of `as_dict`; a file without the later fields is one pooled threshold.

        Raises EpisodeDataError naming the key.
        """
        tasks, known, new = data.get("tasks", {}), data.get("known"), data.get("provisional")
        return Thresholds(
            pooled=Calibration.from_dict(data, where),
            tasks={read_text(t, where): Calibration.from_dict(c, f"{where}, {t}") for t, c in tasks.items()},
            known=None if known is None else {t: read_count(n, f"{where}, known, {t}") for t, n in known.items()},
            provisional=None if new is None else Provisional.from_dict(new, f"{where}, provisional"),
        )


def _own(calibration: Calibration, task: str) -> Choice:
    if math.isfinite(calibration.threshold):
        return Choice(calibration.threshold, "task", "")
    return Choice(math.inf, "uncalibrated", f"no threshold exists on {task}")


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
