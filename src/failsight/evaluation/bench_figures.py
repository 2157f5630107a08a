"""Every figure of a detector comparison, from stored traces; AUCs in points (0-100)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from failsight.core.types import Array
from failsight.evaluation.alarms import (
    Alarm,
    alarm_table,
    average_precision,
    false_alarm_rates,
    first_alarm,
    precision_at,
    threshold_at,
)
from failsight.evaluation.calibration import calibration_table
from failsight.evaluation.claims import Bootstraps
from failsight.evaluation.detection import auc
from failsight.evaluation.intervals import Estimate
from failsight.evaluation.judging import Traces
from failsight.evaluation.protocols import EpisodeFacts, longest_test_cut, moment_steps, up_to
from failsight.evaluation.ranking import Ranking, auc_draws, auc_estimate, episode_weights, task_weights

ALPHA = 0.10
Stored = Mapping[str, Sequence[Traces]]
"""Protocol name -> traces of its splits."""


def bootstraps(facts: EpisodeFacts, name: str) -> Bootstraps:
    """By episode within task and outcome, and by whole task."""
    strata = [f"{t}|{int(f)}" for t, f in zip(facts.task, facts.failed, strict=True)]
    return Bootstraps(episode_weights(strata, (name,)), task_weights(list(facts.task), (name,)))


def rankings(
    traces: Sequence[Traces],
    facts: EpisodeFacts,
    part: str,
    cut: str,
    prior: bool = False,
    keep: Array | None = None,
) -> list[Ranking]:
    """Test sets of a protocol.

    Args:
        traces: one per split.
        facts: of the whole data set.
        part: seen or unseen.
        cut: early (shortest episode of the task), 25 or 50 (per cent of the declared horizon, maximum so far),
            published (ActProbe's), aliveearly, alive25 or alive50 (score at that step among episodes still running).
        prior: add the task's log-odds to the standardised evidence.
        keep: (N,) episodes to compare; all by default.
    """
    return [_ranking(t, facts, part, cut, prior, keep) for t in traces]


def _ranking(t: Traces, facts: EpisodeFacts, part: str, cut: str, prior: bool, keep: Array | None) -> Ranking:
    units = t.seen if part == "seen" else t.unseen
    ends = _ends(facts, cut, units)
    alive = cut.startswith("alive")
    if alive:
        units = units[facts.length[units] >= ends[units]]
    if keep is not None:
        units = units[keep[units]]
    first = 0 if cut == "early" else 4
    scores = np.array(
        [t.evidence[int(i)][ends[i] - 1] if alive else up_to(t.evidence[int(i)], int(ends[i]), first) for i in units]
    )
    if prior:
        known = t.probability.histories
        scores = (scores - t.probability.centre) / t.probability.spread
        scores = scores + np.array([known[task].prior if task in known else 0.0 for task in facts.task[units]])
    told = np.isfinite(scores)  # an episode the detector cannot judge is not ranked, and not counted
    units, scores = units[told], scores[told]
    return Ranking(units, scores, facts.failed[units], facts.task[units])


def _ends(facts: EpisodeFacts, cut: str, units: Array) -> Array:
    if cut.startswith("alive") or cut in ("early", "25", "50"):
        return moment_steps(facts, cut.removeprefix("alive"))
    return longest_test_cut(facts, units, 0.25)


def auc_figures(
    stored: Stored, facts: EpisodeFacts, boots: Bootstraps, adds_prior: bool, over_fits: bool = False
) -> dict[str, Any]:
    """All AUCs of one detector on one data set, each with its interval by episode and by task.

    With `over_fits` the interval is a t interval over the fits instead: for fits on permuted labels, each of which ranks
    episodes by another random function.
    """
    figures: dict[str, Any] = {}

    def add(name: str, protocol: str, part: str, cut: str, **options: Any) -> None:
        if protocol not in stored:
            return
        within = options.pop("within", False)
        sets = rankings(stored[protocol], facts, part, cut, **options)
        if not any(len(r.unit) for r in sets):
            return
        if over_fits:
            figures[name] = _over_fits(sets, len(facts.task), within, 1).as_dict()
            return
        estimate = auc_estimate(sets, boots.episodes, within)
        clusters = auc_estimate(sets, boots.tasks, within)
        figures[name] = {
            **estimate.as_dict(),
            "low_tasks": clusters.as_dict()["low"],
            "high_tasks": clusters.as_dict()["high"],
        }

    consistent = ~facts.failed | facts.timed_out
    add("auc25_seen", "actprobe_seen", "seen", "25", prior=adds_prior)
    add("auc25_seen_alone", "actprobe_seen", "seen", "25")
    add("auc25_seen_published_cut", "actprobe_seen", "seen", "published", prior=adds_prior)
    add("auc25_unseen", "actprobe_unseen", "unseen", "25")
    add("auc25_unseen_published_cut", "actprobe_unseen", "unseen", "published")
    add("auc25_folds", "folds", "seen", "25", prior=adds_prior)
    add("auc25_within", "folds", "seen", "25", within=True)
    add("auc25_within_unseen", "leave_tasks_out", "unseen", "25", within=True)
    add("auc25_within_consistent", "folds", "seen", "25", within=True, keep=consistent)
    for share in ("25", "50"):
        add(f"auc{share}_alive", "folds", "seen", f"alive{share}")
        add(f"auc{share}_alive_within", "folds", "seen", f"alive{share}", within=True)
        add(f"auc{share}_alive_within_unseen", "leave_tasks_out", "unseen", f"alive{share}", within=True)
    add("early_seen", "safe", "seen", "early", prior=adds_prior)
    add("early_seen_alone", "safe", "seen", "early")
    add("early_unseen", "safe", "unseen", "early")
    add("early_within_seen", "safe", "seen", "early", within=True)
    add("early_within_unseen", "safe", "unseen", "early", within=True)
    add("early_folds", "folds", "seen", "early", prior=adds_prior)
    add("early_within_folds", "folds", "seen", "early", within=True)
    add("early_within_leave_tasks_out", "leave_tasks_out", "unseen", "early", within=True)
    return figures


def other_figures(stored: Stored, facts: EpisodeFacts, cut: str, rate_hz: float, key: str) -> dict[str, Any]:
    """Calibration, false alarms and earliness from the five folds, in which every episode is scored once; and the cost."""
    folds = stored["folds"]
    figures = _calibration(folds, facts, cut, key) | _ranked(folds, facts, cut)
    figures["ece_early"] = _calibration(folds, facts, "early", key)["ece"]
    scores: dict[int, Array] = {}
    for t in folds:
        spread = t.probability.spread
        scores |= {int(i): (t.evidence[int(i)] - t.probability.centre) / spread for i in t.seen}
    order = sorted(scores)
    good = np.array([np.fmax.reduce(scores[i], initial=-np.inf) for i in order if not facts.failed[i]])
    rates = false_alarm_rates(good, ALPHA, key)
    if rates:
        worst = max(rates.values(), key=lambda e: e.value)
        figures["fpr_alpha10"] = {**worst.as_dict(), "per_n": {str(n): e.as_dict() for n, e in rates.items()}}
    limit = threshold_at(good, ALPHA)
    alarms = [Alarm(bool(facts.failed[i]), int(facts.length[i]), first_alarm(scores[i], limit)) for i in order]
    table = alarm_table(alarms, rate_hz)
    figures["recall_half"] = table["recall_half"]
    lost = [a for i, a in zip(order, alarms, strict=True) if facts.timed_out[i]]
    if lost and len(lost) < facts.failed.sum():
        figures["recall_half_timeouts"] = alarm_table(lost, rate_hz)["recall_half"]
    figures["alarm"] = table
    everything = [t for part in stored.values() for t in part]
    figures["fit_s"] = _spread([t.fit_s for t in everything])
    figures["step_us"] = _spread([t.step_us for t in everything])
    return figures


def select(stored: Mapping[str, Stored], facts: EpisodeFacts, cut: str) -> dict[str, list[Traces]]:
    """Nested selection: on every split, the traces of the detector that ranked the *validation* episodes best.

    What choosing among all of them honestly is worth; protocols that not all detectors ran under are left out.
    """
    everyone = list(stored.values())
    common = [p for p in everyone[0] if all(p in s for s in everyone)]
    return {
        protocol: [
            max((s[protocol][k] for s in everyone), key=lambda t: _validation_auc(t, facts, cut))
            for k in range(len(everyone[0][protocol]))
        ]
        for protocol in common
    }


def _validation_auc(t: Traces, facts: EpisodeFacts, cut: str) -> float:
    """With the prior, as it would be displayed; 0 when the validation part has one outcome only."""
    r = _ranking(t._replace(seen=t.validate), facts, "seen", cut, True, None)
    value = auc(r.score, r.failed)
    return value if np.isfinite(value) else 0.0


def control_estimate(traces: Sequence[Traces], facts: EpisodeFacts, cut: str, family: int) -> Estimate:
    """Within-task AUC of fits on permuted labels: mean over fits (one per fold and permutation) in points.

    The t interval is simultaneous: all `family` controls of a table hold with 95 % (Sidak), so that a long table does not
    show a fault by chance alone.
    """
    return _over_fits(rankings(traces, facts, "seen", cut), len(facts.task), True, family)


def _over_fits(sets: Sequence[Ranking], size: int, within: bool, family: int) -> Estimate:
    ones = np.ones((1, size), np.float32)
    each = [auc_draws([r], ones, within)[0] for r in sets]
    values = 100 * np.array([v for v in each if np.isfinite(v)])
    if len(values) < 2:
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"), n=len(values))
    level = 1 - (1 - 0.95 ** (1 / max(family, 1))) / 2
    half = float(stats.t.ppf(level, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    return Estimate(value=mean, low=mean - half, high=mean + half, n=len(values))


def _calibration(folds: Sequence[Traces], facts: EpisodeFacts, cut: str, key: str) -> dict[str, Any]:
    rows = []
    ends = _ends(facts, cut, np.arange(len(facts.task)))
    for t in folds:
        for i in t.seen:
            step = min(int(ends[i]), int(facts.length[i])) - 1
            rows.append((t.probability.p_fail(float(t.evidence[int(i)][step]), str(facts.task[i]), step), int(i)))
    p, units = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    table = calibration_table(p, facts.failed[units], [str(f) for f in facts.failed[units]], key)
    return {"ece": {**table.pop("ece"), **table}}


def _ranked(folds: Sequence[Traces], facts: EpisodeFacts, cut: str) -> dict[str, Any]:
    sets = rankings(folds, facts, "seen", cut, prior=True)
    score, failed = np.concatenate([r.score for r in sets]), np.concatenate([r.failed for r in sets])
    return {
        "auprc": {"value": 100 * average_precision(score, failed), "prevalence": 100 * float(failed.mean())},
        "precision_at_20": precision_at(score, failed, 20).as_dict(),
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean with the range, for times."""
    return Estimate(value=float(np.mean(values)), low=min(values), high=max(values), n=len(values)).as_dict()
