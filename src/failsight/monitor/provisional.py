"""A provisional threshold for a task of which nobody has labelled an episode yet.

It comes from successes of the training data's tasks, each judged by a model that had not seen its task. From the fifth
episode of the new task on, without any label, it is corrected by how much higher the evidence runs there than usual:

    shift(n) = n / (n + 3) * (median over its first n episodes, at most 10, of the mean evidence up to half the usual
               length - the same of successes the model was not fitted on)

The calibration behind it is corrected in the same way. No promise holds on a single task: ten labelled successes of it
replace all this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from failsight.core.errors import CalibrationError
from failsight.core.foreign import read_count, read_number
from failsight.core.types import Array
from failsight.monitor.calibration import Calibration, conformal_threshold

FIRST, MOST = 5, 10
"""Unlabelled episodes of a task from which, and up to which, the threshold is corrected."""
_SHRINK = 3


def level_of(evidence: Array, steps: int) -> float:
    """Mean evidence (T,) over the first `steps` steps; NaN when none of them could be judged."""
    seen = evidence[:steps][np.isfinite(evidence[:steps])]
    return float(seen.mean()) if len(seen) else float("nan")


def shift(levels: Sequence[float], usual: float) -> float:
    """How much higher the threshold of a task must be after its episodes with these levels; 0 before the fifth.

    >>> shift([1.0] * 4, 0.0), shift([1.0] * 5, 0.0), round(shift([1.0] * 20, 0.0), 3)
    (0.0, 0.625, 0.769)
    """
    known = [value for value in levels if np.isfinite(value)][:MOST]
    if len(known) < FIRST:
        return 0.0
    return len(known) / (len(known) + _SHRINK) * (float(np.median(known)) - usual)


class LeftOut(NamedTuple):
    """One task as a model saw it that was fitted without it."""

    statistics: Sequence[float]
    """Trigger statistics of its successes."""
    levels: Sequence[float]
    """Of its first episodes, whatever their outcome, in the order in which they were recorded."""
    usual: float
    """Median level of successes of other tasks that this model was not fitted on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisional:
    """Thresholds for tasks that were never seen."""

    plain: Calibration
    """Before the fifth episode of the task."""
    corrected: Calibration
    """What the shift is added to from then on."""
    usual: float
    """Median level of successes the deployed model was not fitted on."""
    steps: int
    """Steps of an episode that make its level: half the usual length."""

    def threshold(self, levels: Sequence[float]) -> float:
        """The threshold after unlabelled episodes of these levels."""
        known = sum(bool(np.isfinite(value)) for value in levels)
        return self.plain.threshold if known < FIRST else self.corrected.threshold + shift(list(levels), self.usual)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any], where: str = "provisional") -> Provisional:
        """Inverse of `as_dict`. Raises EpisodeDataError naming the key."""
        return Provisional(
            plain=Calibration.from_dict(data["plain"], f"{where}, plain"),
            corrected=Calibration.from_dict(data["corrected"], f"{where}, corrected"),
            usual=read_number(data["usual"], f"{where}, usual"),
            steps=read_count(data["steps"], f"{where}, steps", 1),
        )


def fit_provisional(tasks: Sequence[LeftOut], usual: float, steps: int, alpha: float) -> Provisional | None:
    """From tasks left out one group at a time; None when they hold too few successes for `alpha`, or are fewer than 2."""
    if sum(bool(task.statistics) for task in tasks) < 2 or not np.isfinite(usual):
        return None
    plain = [value for task in tasks for value in task.statistics]
    corrected = [value - shift(task.levels, task.usual) for task in tasks for value in task.statistics]
    try:
        return Provisional(
            plain=conformal_threshold(plain, alpha),
            corrected=conformal_threshold(corrected, alpha),
            usual=usual,
            steps=steps,
        )
    except CalibrationError:
        return None
