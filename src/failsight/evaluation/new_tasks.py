"""What a threshold does on tasks of which nothing was known: false alarms before any label, and after ten labelled successes.

Every task is met by a model that was fitted without it. Its provisional threshold comes from successes of the other tasks,
each judged by a model that had seen neither (protocol `new_tasks`), and is corrected by the task's own unlabelled episodes
in the order in which they were recorded, as it would be in use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from failsight.core.rng import keyed_rng
from failsight.core.types import Array
from failsight.evaluation.alarms import Alarm, alarm_table, first_alarm, threshold_at
from failsight.evaluation.intervals import bootstrap
from failsight.evaluation.judging import Traces
from failsight.evaluation.protocols import EpisodeFacts
from failsight.monitor.provisional import MOST, LeftOut, Provisional, fit_provisional, level_of

_LABELLED = 10
"""Labelled successes that calibrate a task."""
_RESAMPLINGS = 200


class _Watched(NamedTuple):
    """One episode of a new task under its provisional threshold."""

    task: str
    alarm: Alarm


def new_task_figures(traces: Sequence[Traces], facts: EpisodeFacts, alpha: float, rate_hz: float) -> dict[str, Any]:
    """False alarms, recall and catches by half-length on new tasks: uncorrected, as deployed, and calibrated by 10 successes.

    Args: traces: of the protocol `new_tasks`, each group alone, then every two.
    """
    by_tasks = {frozenset(np.unique(facts.task[t.unseen]).tolist()): t for t in traces}
    alone = [group for group in by_tasks if not any(other < group for other in by_tasks)]
    rows: dict[str, list[_Watched]] = {"before_labels": [], "uncorrected": []}
    labelled = dict[str, float]()
    for group in alone:
        others = {other: by_tasks[group | other] for other in alone if group | other in by_tasks and other != group}
        provisional = provisional_of(by_tasks[group], others, facts, alpha)
        if provisional is None:
            continue
        for task in sorted(group):
            for name, correct in (("before_labels", True), ("uncorrected", False)):
                rows[name] += _watch(by_tasks[group], facts, task, provisional, correct)
            rate = _after_labels(by_tasks[group], facts, task, alpha)
            if np.isfinite(rate):
                labelled[task] = rate
    if not rows["before_labels"]:
        return {}
    result = {name: _figures(watched, rate_hz) for name, watched in rows.items()}
    values = np.array(list(labelled.values()))
    mean = bootstrap(lambda at: float(values[at].mean()), [0] * len(values), ("ten labels",), 300)
    worst = max(labelled.values(), default=None)
    return {"alpha": alpha, **result, "after_ten": {"mean_of_tasks": mean.as_dict(), "worst_task": worst}}


def provisional_of(
    own: Traces, others: Mapping[frozenset[str], Traces], facts: EpisodeFacts, alpha: float
) -> Provisional | None:
    """The provisional threshold of the model behind `own`, from tasks (keys) that each model of `others` has not seen."""
    good = [i for i in own.validate.tolist() if not facts.failed[i]]
    steps = half_usual(facts, own)
    tasks = [left_out(traces, facts, task, steps) for group, traces in others.items() for task in sorted(group)]
    return fit_provisional(tasks, _usual(own, good, steps), steps, alpha)


def left_out(traces: Traces, facts: EpisodeFacts, task: str, steps: int) -> LeftOut:
    """A task's episodes under a model that was fitted without it."""
    mine = [i for i in sorted(traces.unseen.tolist()) if facts.task[i] == task]
    good = [i for i in traces.validate.tolist() if not facts.failed[i]]
    return LeftOut(
        statistics=[_largest(traces.evidence[i]) for i in mine if not facts.failed[i]],
        levels=[level_of(traces.evidence[i], steps) for i in mine[:MOST]],
        usual=_usual(traces, good, steps),
    )


def half_usual(facts: EpisodeFacts, own: Traces) -> int:
    """Half the median length of the successes of other tasks, at least one step."""
    known = np.ones(len(facts.task), bool)
    known[own.unseen] = False
    good = facts.length[known & ~facts.failed]
    return max(1, int(np.median(good)) // 2) if len(good) else 1


def _usual(traces: Traces, good: Sequence[int], steps: int) -> float:
    levels = [level_of(traces.evidence[i], steps) for i in good]
    return float(np.nanmedian(levels)) if np.isfinite(levels).any() else float("nan")


def _largest(evidence: Array) -> float:
    return float(np.fmax.reduce(evidence, initial=-np.inf))


def _watch(traces: Traces, facts: EpisodeFacts, task: str, provisional: Provisional, correct: bool) -> list[_Watched]:
    """The task's episodes one after another, each under the threshold that the ones before it leave."""
    levels, watched = list[float](), []
    for i in sorted(i for i in traces.unseen.tolist() if facts.task[i] == task):
        limit = provisional.threshold(levels if correct else ())
        at = first_alarm(traces.evidence[i], limit)
        watched.append(_Watched(task, Alarm(bool(facts.failed[i]), int(facts.length[i]), at)))
        levels.append(level_of(traces.evidence[i], provisional.steps))
    return watched


def _after_labels(traces: Traces, facts: EpisodeFacts, task: str, alpha: float) -> float:
    """Mean false-alarm rate when ten random successes of the task calibrate it and its others are watched."""
    good = np.array(
        [_largest(traces.evidence[i]) for i in traces.unseen.tolist() if facts.task[i] == task and not facts.failed[i]]
    )
    if len(good) < 2 * _LABELLED:
        return float("nan")
    rng, rates = keyed_rng("ten labels", task), []
    for _ in range(_RESAMPLINGS):
        order = rng.permutation(len(good))
        rates.append(float((good[order[_LABELLED:]] >= threshold_at(good[order[:_LABELLED]], alpha)).mean()))
    return float(np.mean(rates))


def _figures(watched: Sequence[_Watched], rate_hz: float) -> dict[str, Any]:
    """Rate over all successes with its interval by task, mean and worst of the tasks, and what of the failures is caught."""
    good = [w for w in watched if not w.alarm.failed]
    fired, tasks = np.array([w.alarm.at is not None for w in good], float), np.array([w.task for w in good])
    each = {str(t): float(fired[tasks == t].mean()) for t in np.unique(tasks)}
    names = sorted(each)

    def rate(rows: Array) -> float:
        """Of whole tasks drawn."""
        return float(np.concatenate([fired[tasks == names[i]] for i in rows]).mean())

    table = alarm_table([w.alarm for w in watched], rate_hz)
    return {
        "false_alarm_rate": bootstrap(rate, [0] * len(names), ("new tasks",), 300).as_dict(),
        "mean_of_tasks": float(np.mean(list(each.values()))),
        "worst_task": max(each.values()),
        "tasks": each,
        "recall": table["recall"],
        "recall_half": table["recall_half"],
    }
