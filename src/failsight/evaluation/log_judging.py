"""Judging detectors on a log by held-out folds: figures at the moment, paired against clock and prior rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from failsight.core.errors import CalibrationError
from failsight.evaluation.bench_figures import auc_figures, bootstraps, other_figures
from failsight.evaluation.claims import CONTROL_ROWS
from failsight.evaluation.judging import DataSet, Traces, blend_traces, judge, without_short
from failsight.evaluation.moments import headline_claims, headline_moment, moment_figures
from failsight.evaluation.protocols import PROTOCOLS, EpisodeFacts, Split, headline_cut, splits
from failsight.predictors.detector import FitData
from failsight.predictors.detectors import CONTROLS, DETECTORS, blended
from failsight.predictors.find_detector import find_detector

JUDGED = (
    "running_mean",
    "ledger",
    "hazard_ensemble",
    "ledger_actions",
    "ledger_proprioception",
    "ledger_signals",
    *CONTROLS,
)
"""Rows beside the fitted detector."""
_LEAST_FAILURES = 5
"""Failures below which nothing can be judged by folds."""


class Headline(NamedTuple):
    """Where a log is judged first, in words, and the keys of its figures inside `running`."""

    words: str
    moment: str


def judged_at(facts: EpisodeFacts) -> Headline:
    """The step at which evidence is judged, among the episodes still running there."""
    moment = headline_moment(facts)
    return Headline("25 % of the horizon" if moment == "25" else "the shortest episode of the task", moment)


def judge_log(data: DataSet, detectors: Sequence[str], note: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Five-fold figures of several detectors. Raises CalibrationError when there are too few failures to judge by."""
    judged = without_short(data)
    if len(judged.sequences) < len(data.sequences):
        note(f"{len(data.sequences) - len(judged.sequences)} episodes of fewer than 4 steps are not judged")
    data = judged
    failures = int(data.facts.failed.sum())
    successes = len(data.facts.task) - failures
    if min(failures, successes) < _LEAST_FAILURES:
        raise CalibrationError(
            f"{failures} failures and {successes} successes are too few to judge a detector; at least "
            f"{_LEAST_FAILURES} of each are needed, about 30 of each for an interval of +-10 points."
        )
    folds = splits(PROTOCOLS["folds"], data.facts)
    boots = bootstraps(data.facts, data.name)
    cut = headline_cut(data.facts)
    stored = dict[str, dict[str, list[Traces]]]()
    for name in dict.fromkeys((*detectors, *CONTROL_ROWS)):
        entry = find_detector(name)
        lacks = entry.lacks(FitData(data.sequences, data.columns, 0))
        if lacks:
            if name in detectors:
                note(f"{name} needs {lacks}: left out")
            continue
        stored[name] = {"folds": _judge_folds(data, name, folds, stored)}
    controls = {name: stored[name] for name in CONTROL_ROWS if name in stored}
    table = {}
    for name in (name for name in detectors if name in stored):
        prior = find_detector(name).adds_prior
        table[name] = auc_figures(stored[name], data.facts, boots, prior)
        table[name] |= other_figures(stored[name], data.facts, cut, data.rate_hz, name)
        table[name]["running"] = moment_figures(stored[name], data.facts, boots, prior)
        if name not in CONTROLS:
            table[name]["claims"] = headline_claims(stored[name], controls, data.facts, boots, prior)
    return table


def _judge_folds(
    data: DataSet, name: str, folds: Sequence[Split], stored: Mapping[str, Mapping[str, Sequence[Traces]]]
) -> list[Traces]:
    """Traces of one detector; a blend's follow from those of its members where they are there."""
    entry = find_detector(name)
    members = {m: stored[d]["folds"] for m, d in entry.parts.items() if d in stored}
    if members and set(members) == set(blended(FitData(data.sequences, data.columns, 0))):
        return [blend_traces({m: t[k] for m, t in members.items()}, data, split) for k, split in enumerate(folds)]
    return [judge(data, entry, split, k) for k, split in enumerate(folds)]


HEADLINES = {"headline": "seen", "headline_within": "seen_within", "headline_condition": "seen_within_condition"}
"""Key of a summary -> view behind it."""


def headlines(claims: Mapping[str, Any], moment: str) -> dict[str, Any]:
    """The claims a report opens with: pooled, within tasks, and within conditions where they are known."""
    nothing = {"shown": False, "sentence": "no data: not shown", "over": {}}
    wanted = {k: v for k, v in HEADLINES.items() if v in claims or k != "headline_condition"}
    return {key: {"metric": f"running.{moment}.{view}", **claims.get(view, nothing)} for key, view in wanted.items()}


def describe(data: DataSet) -> dict[str, Any]:
    """What a summary says about a data set."""
    facts = data.facts
    whole = FitData(data.sequences, data.columns, 0)
    return {
        "episodes": len(facts.task),
        "failures": int(facts.failed.sum()),
        "tasks": len(np.unique(facts.task)),
        "horizon": facts.horizon,
        "judged_at": judged_at(facts).words,
        "moment": judged_at(facts).moment,
        "contradictory_failures": int((facts.failed & ~facts.timed_out).sum()),
        "lacking": {n: lacks for n, d in DETECTORS.items() if (lacks := d.lacks(whole))},
        "per_task": {
            str(task): {
                "episodes": int((facts.task == task).sum()),
                "failures": int(facts.failed[facts.task == task].sum()),
            }
            for task in np.unique(facts.task)
        },
    }
