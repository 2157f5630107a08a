"""Figures at a moment: evidence judged at the step itself, among the episodes still running there.

| moment | step |
|---|---|
| early | the shortest episode of the task |
| 25, 50 | per cent of the declared horizon |

| view | tested on | compared |
|---|---|---|
| seen | known tasks, five folds, the task's prior added | all pairs |
| seen_within | the same, evidence alone | pairs of the same task |
| seen_within_condition | the same, where perturbations are known | pairs of the same condition |
| unseen, unseen_within | tasks left out, evidence alone | all pairs, pairs of the same task |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from failsight.evaluation.alarms import average_precision, precision_at
from failsight.evaluation.bench_figures import Stored, rankings
from failsight.evaluation.claims import (
    CONTROL_ROWS,
    Bootstraps,
    claim,
    count,
    draw_difference,
    figure,
    holm,
    mean_difference,
    over_controls,
    paired,
)
from failsight.evaluation.protocols import EpisodeFacts, headline_cut
from failsight.evaluation.ranking import Ranking

MOMENTS = ("early", "25", "50")
TOP = 20
"""K of precision@K."""


class View(NamedTuple):
    """Whom a figure compares."""

    protocol: str
    part: str
    within: str
    """"", "task" or "condition"."""
    prior: bool


VIEWS = {
    "seen": View("folds", "seen", "", True),
    "seen_within": View("folds", "seen", "task", False),
    "seen_within_condition": View("folds", "seen", "condition", False),
    "unseen": View("leave_tasks_out", "unseen", "", False),
    "unseen_within": View("leave_tasks_out", "unseen", "task", False),
}


def knows_conditions(facts: EpisodeFacts) -> bool:
    """Whether episodes differ in a known perturbation."""
    return facts.condition is not None and len(np.unique(facts.condition)) > 1


def sets_of(
    stored: Stored, facts: EpisodeFacts, view: str, moment: str, adds_prior: bool = True
) -> list[Ranking] | None:
    """Test sets of a view; None where the detector was not run under its protocol, or conditions are not known.

    Both protocols score every episode once, so the splits of a detector are one test set: every pair of a task counts
    once, not only the few that fell into the same fold. Controls (`adds_prior` false) are constants of their fit, which
    differ by the outcomes that were held out: pairs across splits would rank by them (17 instead of 50), so theirs stay
    apart.
    """
    protocol, part, within, prior = VIEWS[view]
    if protocol not in stored or (within == "condition" and not knows_conditions(facts)):
        return None
    sets = rankings(stored[protocol], facts, part, f"alive{moment}", prior=prior and adds_prior)
    sets = merged(sets) if adds_prior else sets
    if within == "condition" and facts.condition is not None:
        return [r._replace(task=facts.condition[r.unit]) for r in sets]
    return sets


def merged(sets: Sequence[Ranking]) -> list[Ranking]:
    """One test set out of several; scores of an episode that several of them hold stay apart."""
    units = np.concatenate([r.unit for r in sets]) if sets else np.zeros(0, int)
    if len(np.unique(units)) < len(units):
        return list(sets)
    return [Ranking(*(np.concatenate([getattr(r, name) for r in sets]) for name in Ranking._fields))]


def moment_figures(stored: Stored, facts: EpisodeFacts, boots: Bootstraps, adds_prior: bool) -> dict[str, Any]:
    """Moment -> view -> AUC; AUPRC with its prevalence and precision@K beside the pooled ones."""
    result: dict[str, Any] = {}
    for moment in MOMENTS:
        row: dict[str, Any] = {}
        for view, (_, _, within, _) in VIEWS.items():
            sets = sets_of(stored, facts, view, moment, adds_prior)
            if sets is None or not sum(count(sets)):
                continue
            row[view] = figure(sets, boots, bool(within))
            if not within:
                row[view] |= precision_figures(sets)
        result[moment] = row
    return result


def precision_figures(sets: Sequence[Ranking]) -> dict[str, Any]:
    """Area under precision over recall and precision among the 20 highest, both beside the prevalence."""
    score, failed = (np.concatenate([getattr(r, name) for r in sets]) for name in ("score", "failed"))
    if not len(score):
        return {}
    prevalence = 100 * float(failed.mean())
    area = 100 * average_precision(score, failed) if failed.any() else None
    top = precision_at(score, failed, TOP)
    return {
        "auprc": {"value": area, "prevalence": prevalence, "n": len(failed)},
        f"precision_at_{TOP}": {**top.as_dict(), "prevalence": float(failed.mean())},
    }


def headline_moment(facts: EpisodeFacts) -> str:
    """Where a log is judged first; see `headline_cut`."""
    return headline_cut(facts)


def headline_claims(
    stored: Stored, controls: Mapping[str, Stored], facts: EpisodeFacts, boots: Bootstraps, adds_prior: bool
) -> dict[str, Any]:
    """View -> claim at the headline moment: pooled, within tasks and within conditions, each over every control row."""
    moment, result = headline_moment(facts), {}
    for view in ("seen", "seen_within", "seen_within_condition"):
        own = sets_of(stored, facts, view, moment, adds_prior)
        if own is None or not sum(count(own)):
            continue
        within = bool(VIEWS[view].within)
        rows = {n: sets_of(controls[n], facts, view, moment, False) for n in CONTROL_ROWS if n in controls}
        gaps = over_controls(own, {n: sets for n, sets in rows.items() if sets}, boots, within)
        result[view] = {"moment": moment, **claim(figure(own, boots, within), gaps)}
    return result


def against(
    default: Stored, others: Mapping[str, Stored], facts: EpisodeFacts, boots: Bootstraps, plain: Sequence[str] = ()
) -> dict[str, Any]:
    """Other -> view -> moment -> the default minus it, paired; `plain` rows get no prior added."""
    return {
        name: {
            view: {m: paired(d, n) for m, (d, n) in cells.items()}
            for view in VIEWS
            if (cells := differences(default, stored, facts, boots, view, name not in plain))
        }
        for name, stored in others.items()
    }


def differences(
    default: Stored, other: Stored, facts: EpisodeFacts, boots: Bootstraps, view: str, adds_prior: bool = True
) -> dict[str, Any]:
    """Moment -> (difference with its draws, counts) of one view."""
    cells = {}
    for moment in MOMENTS:
        a = sets_of(default, facts, view, moment)
        b = sets_of(other, facts, view, moment, adds_prior)
        if a is None or b is None or not sum(count(a)):
            continue
        cells[moment] = (draw_difference(a, b, boots, bool(VIEWS[view].within)), count(a))
    return cells


def mean_of_logs(cells: Sequence[tuple[Any, Any]]) -> dict[str, Any] | None:
    """Mean of differences over data sets and moments, those with too few episodes left out; None without any."""
    kept = [(d, n) for d, n in cells if n.enough]
    if not kept:
        return None
    total = type(kept[0][1])(*(sum(n[i] for _, n in kept) for i in range(2)))
    return {**paired(mean_difference([d for d, _ in kept]), total), "cells": len(kept)}


def behind(tests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of a family of differences those below 0, after Holm over the whole family; cells left out are not tested."""
    usable = {k: t for k, t in tests.items() if not t["left_out"] and t["p"] is not None}
    adjusted = holm({k: t["p"] for k, t in usable.items()})
    worse = sorted(k for k, t in usable.items() if t["value"] < 0 and adjusted[k] < 0.05)
    return {"tests": len(usable), "behind": worse, "smallest_p": min(adjusted.values(), default=None)}
