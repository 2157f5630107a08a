"""Judging failure prediction at equal elapsed time, against the clock and the task's failure rate.

Every score is taken at a fixed step of the declared horizon, among episodes still running there, so that "failures take
longer" cannot help. Within-group AUC compares only pairs of the same task (or task and condition), weighted by pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from failsight.core.types import FAILURE_TYPES, Array
from failsight.evaluation.intervals import Estimate, bootstrap, proportion


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One test episode as a detector saw it."""

    ticket: int
    task: str
    condition: str
    failed: bool
    kind: int
    """Index into FAILURE_TYPES, -1 on a success."""
    onset: int | None
    p_fail: Array
    """(T,)."""
    alarm: Array
    """(T,) the score that is compared with the threshold."""
    types: Array
    """(T, 4)."""
    time_to_failure: Array
    """(T,)."""
    dimension: Array
    """(T, A)."""
    dimension_labels: Array
    """(T, A) bool."""
    trigger: int | None
    """First step at which the trigger was on."""


_TYPE_STEPS = 80
"""Window of the type decision; chosen on calibration episodes, where 80 beat 1 to 40 steps."""


def auc(scores: Array, failed: Array) -> float:
    """Area under the ROC curve of `scores` (N,) for `failed` (N,) bool through ranks; NaN when a class is empty.

    >>> auc(np.array([0.1, 0.9]), np.array([False, True]))
    1.0
    """
    positives, negatives = int(failed.sum()), int((~failed).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks = stats.rankdata(scores)
    return float((ranks[failed].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def within_auc(scores: Array, failed: Array, groups: Array) -> float:
    """AUC over pairs of the same group only, weighted by the number of pairs; NaN when no group has both classes.

    Args: scores: (N,); failed: (N,) bool; groups: (N,) what each belongs to.
    """
    total, weight = 0.0, 0
    for group in np.unique(groups):
        rows = groups == group
        pairs = int(failed[rows].sum()) * int((~failed[rows]).sum())
        if pairs:
            total += auc(scores[rows], failed[rows]) * pairs
            weight += pairs
    return total / weight if weight else float("nan")


class _Cut(NamedTuple):
    """Scores at one step of the episodes still running then."""

    scores: Array
    failed: Array
    groups: dict[str, Array]
    """Group labels of every within-metric."""

    def metric(self, name: str, rows: Array) -> float:
        """AUC of a resample."""
        if name == "auc":
            return auc(self.scores[rows], self.failed[rows])
        return within_auc(self.scores[rows], self.failed[rows], self.groups[name][rows])


def _cut(episodes: Sequence[Scored], step: int) -> tuple[_Cut, list[str]]:
    alive = [e for e in episodes if len(e.p_fail) > step]
    groups = {
        "within_task_auc": [e.task for e in alive],
        "within_perturbation_auc": [e.condition for e in alive],
        "within_task_and_perturbation_auc": [f"{e.task}|{e.condition}" for e in alive],
    }
    cut = _Cut(
        np.array([e.p_fail[step] for e in alive]),
        np.array([e.failed for e in alive], bool),
        {name: np.array(labels) for name, labels in groups.items()},
    )
    return cut, [f"{e.task}|{e.failed}" for e in alive]


AUC_METRICS = ("auc", "within_task_auc", "within_perturbation_auc", "within_task_and_perturbation_auc")


def auc_points(episodes: Sequence[Scored], step: int) -> dict[str, float]:
    """Pooled AUC at `step` over episodes still running then, and AUC within task, perturbation, and both."""
    cut, _ = _cut(episodes, step)
    everything = np.arange(len(cut.scores))
    return {name: cut.metric(name, everything) for name in AUC_METRICS}


def auc_table(episodes: Sequence[Scored], step: int, key: str) -> dict[str, Estimate]:
    """`auc_points` with bootstrap intervals over episodes, stratified by task and outcome."""
    cut, strata = _cut(episodes, step)

    def estimate(name: str) -> Estimate:
        return bootstrap(lambda rows: cut.metric(name, rows), strata, (key, name, step))

    return {name: estimate(name) for name in AUC_METRICS}


def false_alarms(episodes: Sequence[Scored]) -> Estimate:
    """Share of successful episodes that trigger."""
    good = [e for e in episodes if not e.failed]
    return proportion(sum(e.trigger is not None for e in good), len(good))


def recall(episodes: Sequence[Scored]) -> Estimate:
    """Share of failed episodes that trigger."""
    bad = [e for e in episodes if e.failed]
    return proportion(sum(e.trigger is not None for e in bad), len(bad))


def lead_steps(episodes: Sequence[Scored]) -> Estimate:
    """Mean steps from trigger to the end of a failed episode; a missed failure counts 0."""
    bad = [e for e in episodes if e.failed]
    leads = np.array([0 if e.trigger is None else len(e.p_fail) - e.trigger for e in bad], float)
    return bootstrap(lambda rows: float(leads[rows].mean()) if len(rows) else float("nan"), [0] * len(bad), ("lead",))


def before_onset(episodes: Sequence[Scored]) -> Estimate:
    """Share of failed episodes whose trigger came at or before the onset."""
    bad = [e for e in episodes if e.failed and e.onset is not None]
    early = sum(e.trigger is not None and e.onset is not None and e.trigger <= e.onset for e in bad)
    return proportion(early, len(bad))


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeScores:
    """Precision, recall and F1 per failure type (NaN where a type never occurs), and their means."""

    precision: Array
    recall: Array
    f1: Array
    support: Array
    macro_f1: Estimate
    macro_recall: Estimate

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        rows = {
            name: {
                "precision": _number(self.precision[i]),
                "recall": _number(self.recall[i]),
                "f1": _number(self.f1[i]),
                "n": int(self.support[i]),
            }
            for i, name in enumerate(FAILURE_TYPES)
        }
        return {
            "per_type": rows,
            "macro_f1": self.macro_f1.as_dict(),
            "macro_recall": self.macro_recall.as_dict(),
        }


def type_scores(episodes: Sequence[Scored], key: str) -> TypeScores:
    """In hindsight, which type, among episodes known to have failed: the largest mean score over the last `_TYPE_STEPS`
    steps. What can be said in time is `evaluation.failure_types`.
    """
    bad = [e for e in episodes if e.failed and e.kind >= 0]
    truth = np.array([e.kind for e in bad], int)
    guess = np.array([int(np.argmax(e.types[-_TYPE_STEPS:].mean(0))) for e in bad], int)

    def scores(rows: Array) -> tuple[Array, Array, Array]:
        t, g = truth[rows], guess[rows]
        precision, recall_, f1 = (np.full(len(FAILURE_TYPES), np.nan) for _ in range(3))
        for k in range(len(FAILURE_TYPES)):
            hit, said, was = int(((t == k) & (g == k)).sum()), int((g == k).sum()), int((t == k).sum())
            if was:
                recall_[k] = hit / was
                precision[k] = hit / said if said else 0.0
                f1[k] = 2 * hit / (said + was)
        return precision, recall_, f1

    everything = np.arange(len(bad))
    precision, recall_, f1 = scores(everything)
    strata = [str(k) for k in truth]
    return TypeScores(
        precision=precision,
        recall=recall_,
        f1=f1,
        support=np.array([(truth == k).sum() for k in range(len(FAILURE_TYPES))]),
        macro_f1=bootstrap(lambda rows: _mean(scores(rows)[2]), strata, (key, "f1")),
        macro_recall=bootstrap(lambda rows: _mean(scores(rows)[1]), strata, (key, "recall")),
    )


def reliability(episodes: Sequence[Scored], step: int, bins: int = 8) -> dict[str, Any]:
    """Equal-mass reliability at `step`: predicted and observed failure rate per bin, ECE and Brier score."""
    alive = [e for e in episodes if len(e.p_fail) > step]
    if len(alive) < bins:
        return {"ece": None, "brier": None, "n": len(alive), "bins": []}
    p = np.array([float(e.p_fail[step]) for e in alive])
    y = np.array([e.failed for e in alive], float)
    order = np.argsort(p, kind="stable")
    rows: list[dict[str, Any]] = []
    for part in np.array_split(order, bins):
        share = proportion(int(y[part].sum()), len(part))
        rows.append({"predicted": float(p[part].mean()), "observed": share.as_dict()})
    ece = sum(abs(r["predicted"] - r["observed"]["value"]) * r["observed"]["n"] for r in rows) / len(p)
    return {"ece": float(ece), "brier": float(((p - y) ** 2).mean()), "n": len(p), "bins": rows}


def concordance(episodes: Sequence[Scored], step: int, key: str) -> Estimate:
    """C-index of predicted time to failure at `step`: among failures still to come, is the sooner one predicted sooner?"""
    rows = [e for e in episodes if e.failed and e.onset is not None and e.onset > step and len(e.p_fail) > step]
    time = np.array([e.onset for e in rows], float)
    guess = np.array([float(e.time_to_failure[step]) for e in rows])

    def index(sample: Array) -> float:
        t, g = time[sample], guess[sample]
        sooner = t[:, None] < t[None]
        pairs = sooner.sum()
        if not pairs:
            return float("nan")
        right = (g[:, None] < g[None]) & sooner
        tied = (g[:, None] == g[None]) & sooner
        return float((right.sum() + 0.5 * tied.sum()) / pairs)

    return bootstrap(index, [0] * len(rows), (key, "c-index", step))


def dimension_auc(episodes: Sequence[Scored], names: Sequence[str]) -> dict[str, Estimate]:
    """AUC per action dimension over the steps of all episodes, resampled by episode."""
    result = {}
    usable = [e for e in episodes if e.dimension.size]
    for d, name in enumerate(names):
        pairs = [(e.dimension[:, d], e.dimension_labels[:, d]) for e in usable]

        def statistic(rows: Array, pairs: list[tuple[Array, Array]] = pairs) -> float:
            if not len(rows):
                return float("nan")
            return auc(np.concatenate([pairs[i][0] for i in rows]), np.concatenate([pairs[i][1] for i in rows]))

        strata = [bool(p[1].any()) for p in pairs]
        result[name] = bootstrap(statistic, strata, ("dimension", name), draws=100)
    return result


def _mean(values: Array) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
