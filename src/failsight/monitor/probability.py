"""From evidence to a displayed probability: the task's failure rate and being overdue are added here, never in the alarm.

    logit p = slope * (evidence + prior) + late * overdue + intercept

- evidence: standardised on episodes the predictor was not fitted on;
- prior: log-odds of the task's shrunken failure rate (failures + 2 base) / (episodes + 2);
- overdue: by how many median successful lengths of the task the episode has run over, 0 before, at most 1.5.

On a task that was never seen there is no prior and therefore no probability (NaN). Platt 1999; isotonic as an option.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from failsight.core.foreign import read_number, require_increasing
from failsight.core.types import Array

_MOST_OVERDUE = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHistory:
    """What training says about a task before an episode starts."""

    prior: float
    """Log-odds of its failure rate."""
    usual: float
    """Median length of its successes, in steps."""

    def overdue(self, step: int) -> float:
        """How far beyond the usual length step `step` is, in usual lengths: 0 to 1.5."""
        return float(min(max((step + 1) / self.usual - 1, 0.0), _MOST_OVERDUE))


def task_histories(tasks: Sequence[str], failed: Sequence[bool], lengths: Sequence[int]) -> dict[str, TaskHistory]:
    """Histories of all tasks of a training set; a task without a success takes the median length of all successes."""
    names, lost, steps = np.array(tasks), np.array(failed, bool), np.array(lengths, float)
    base = float(lost.mean())
    fallback = float(np.median(steps[~lost])) if (~lost).any() else float(np.median(steps))
    result = {}
    for task in np.unique(names):
        mine = names == task
        rate = (lost[mine].sum() + 2 * base) / (mine.sum() + 2)
        rate = min(max(float(rate), 1e-3), 1 - 1e-3)
        good = steps[mine & ~lost]
        usual = float(np.median(good)) if len(good) else fallback
        result[str(task)] = TaskHistory(prior=math.log(rate / (1 - rate)), usual=usual)
    return result


class Terms(NamedTuple):
    """The displayed log-odds, term by term."""

    evidence: float
    prior: float
    overdue: float
    intercept: float

    @property
    def p_fail(self) -> float:
        """Their sum as a probability."""
        return 1 / (1 + math.exp(-max(-40.0, min(40.0, sum(self)))))


class Rows(NamedTuple):
    """Calibration rows: one per episode and step."""

    evidence: Array
    prior: Array
    overdue: Array
    failed: Array
    weight: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbabilityMap:
    """Fitted calibration."""

    centre: float
    spread: float
    slope: float
    late: float
    intercept: float
    histories: Mapping[str, TaskHistory]
    knots: tuple[tuple[float, float], ...] = ()
    """Isotonic: (log-odds before, probability after); empty for Platt."""

    def terms(self, evidence: float, task: str, step: int) -> Terms | None:
        """The terms at `step`, or None on a task training never saw."""
        history = self.histories.get(task)
        if history is None or not math.isfinite(evidence):
            return None
        z = (evidence - self.centre) / self.spread
        return Terms(self.slope * z, self.slope * history.prior, self.late * history.overdue(step), self.intercept)

    def p_fail(self, evidence: float, task: str, step: int) -> float:
        """The displayed probability; NaN on an unknown task."""
        terms = self.terms(evidence, task, step)
        if terms is None:
            return float("nan")
        if not self.knots:
            return terms.p_fail
        x, y = zip(*self.knots, strict=True)
        return float(np.interp(sum(terms), x, y))

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ProbabilityMap:
        """Inverse of `as_dict`. Raises EpisodeDataError naming what cannot be."""
        above = math.ulp(0.0)
        histories = {
            task: TaskHistory(
                prior=read_number(history["prior"], f"probability, {task}, prior"),
                usual=read_number(history["usual"], f"probability, {task}, usual", above),
            )
            for task, history in data["histories"].items()
        }
        knots = tuple(
            (read_number(x, "probability, knots"), read_number(y, "probability, knots", 0.0, 1.0))
            for x, y in data["knots"]
        )
        require_increasing(np.array([x for x, _ in knots]), "probability, knots", "log-odds")
        return ProbabilityMap(
            centre=read_number(data["centre"], "probability, centre"),
            spread=read_number(data["spread"], "probability, spread", above),
            slope=read_number(data["slope"], "probability, slope", 0.0),
            late=read_number(data["late"], "probability, late", 0.0),
            intercept=read_number(data["intercept"], "probability, intercept"),
            histories=histories,
            knots=knots,
        )


def fit_probability(
    rows: Rows, histories: Mapping[str, TaskHistory], kind: Literal["platt", "isotonic"] = "platt"
) -> ProbabilityMap:
    """Fit on rows of episodes the predictor has not seen; with one class only, the prior stands as it is."""
    centre, spread = float(rows.evidence.mean()), max(float(rows.evidence.std()), 1e-9)
    score = (rows.evidence - centre) / spread + rows.prior
    slope, late, intercept = 1.0, 0.0, 0.0
    if rows.failed.any() and not rows.failed.all():
        model = LogisticRegression(C=10.0, max_iter=300)
        model.fit(np.stack([score, rows.overdue], 1), rows.failed, sample_weight=rows.weight)
        slope, late = max(0.0, float(model.coef_[0, 0])), max(0.0, float(model.coef_[0, 1]))
        intercept = float(model.intercept_[0])
    knots: tuple[tuple[float, float], ...] = ()
    if kind == "isotonic":
        knots = _isotonic(slope * score + late * rows.overdue + intercept, rows)
    return ProbabilityMap(
        centre=centre,
        spread=spread,
        slope=slope,
        late=late,
        intercept=intercept,
        histories=dict(histories),
        knots=knots,
    )


def _isotonic(logits: Array, rows: Rows) -> tuple[tuple[float, float], ...]:
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(logits, rows.failed.astype(float), sample_weight=rows.weight)
    return tuple((float(x), float(y)) for x, y in zip(model.X_thresholds_, model.y_thresholds_, strict=True))
