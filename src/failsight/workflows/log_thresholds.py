"""The provisional threshold of a bundle: successes of every task, judged by a model that was fitted without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array
from failsight.evaluation.judging import DataSet, trace
from failsight.evaluation.protocols import NEW_TASK_GROUPS, task_groups
from failsight.monitor.band import Band
from failsight.monitor.provisional import MOST, LeftOut, Provisional, fit_provisional, level_of
from failsight.monitor.trigger import TriggerRule, episode_statistic
from failsight.predictors.dataset import FitSplit, LabelledSequence
from failsight.predictors.detector import Detector, FitData

_LEAST = 2
"""Failures, and successes, without which a model is not fitted."""


def provisional_threshold(
    detector: Detector,
    data: DataSet,
    split: FitSplit,
    deployed: tuple[Predictor, TriggerRule, Band | None],
    alpha: float,
    seed: int,
    note: Callable[[str], None],
) -> Provisional | None:
    """For tasks never seen, from one more fit per group of tasks; None, with a note, where the run has too few tasks.

    Args: deployed: what the bundle judges with: predictor, trigger rule, band.
    """
    predictor, rule, band = deployed
    try:
        groups = task_groups(data.facts, NEW_TASK_GROUPS)
    except EpisodeDataError:
        note("fewer than 3 tasks: on a task it has never seen the monitor has no threshold until 10 successes of it")
        return None
    note(f"fitting {len(groups)} more times, each without some of the tasks: a provisional threshold for new ones")
    steps = _half_usual(split.train)
    tasks = [
        _left_out(model, data, str(task), held, rule, band, steps)
        for group in groups
        for model, held in _without(detector, data, split, group, seed)
        for task in group
    ]
    found = fit_provisional(tasks, _usual(predictor, split.validate, band, steps), steps, alpha)
    if found is None:
        note("too few successes of other tasks for a provisional threshold; a new task has none until 10 of its own")
    return found


def _without(
    detector: Detector, data: DataSet, split: FitSplit, group: Array, seed: int
) -> list[tuple[Predictor, list[LabelledSequence]]]:
    """The detector fitted without a group of tasks, and validation episodes of the others; empty with too few left."""
    train, held = ([s for s in part if s.task not in group] for part in (split.train, split.validate))
    failures = sum(s.failed for s in train)
    if min(failures, len(train) - failures) < _LEAST:
        return []
    return [(detector.fit(FitData(train, data.columns, seed, held)), held)]


def _left_out(
    model: Predictor,
    data: DataSet,
    task: str,
    held: Sequence[LabelledSequence],
    rule: TriggerRule,
    band: Band | None,
    steps: int,
) -> LeftOut:
    mine = sorted((s for s in data.sequences if s.task == task), key=lambda s: s.ticket)
    judged = [_judged(model, s, band) for s in mine]
    return LeftOut(
        statistics=[episode_statistic(e, rule) for s, e in zip(mine, judged, strict=True) if not s.failed],
        levels=[level_of(e, steps) for e in judged[:MOST]],
        usual=_usual(model, held, band, steps),
    )


def _usual(model: Predictor, held: Sequence[LabelledSequence], band: Band | None, steps: int) -> float:
    levels = [level_of(_judged(model, s, band), steps) for s in held if not s.failed]
    return float(np.nanmedian(levels)) if np.isfinite(levels).any() else float("nan")


def _judged(model: Predictor, s: LabelledSequence, band: Band | None) -> Array:
    evidence = trace(model, s)
    return evidence if band is None else band.apply(evidence)


def _half_usual(train: Sequence[LabelledSequence]) -> int:
    good = [len(s.signals) for s in train if not s.failed]
    return max(1, int(np.median(good)) // 2)
