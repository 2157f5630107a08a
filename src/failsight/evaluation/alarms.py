"""What an alarm buys: false alarms at a promised rate, how early failures are caught, what the alarm is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from failsight.core.rng import keyed_rng
from failsight.core.types import Array
from failsight.evaluation.intervals import Estimate, bootstrap, proportion

SIZES = (10, 20, 50, 200)
"""Numbers of calibration successes at which the false-alarm rate is checked."""


def threshold_at(statistics: Array, alpha: float) -> float:
    """Split-conformal threshold of `statistics` (n,): just above the ceil((n + 1)(1 - alpha))-th smallest.

    Infinite when n is too small for `alpha`.
    """
    n = len(statistics)
    rank = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    return float(np.nextafter(np.sort(statistics)[rank - 1], np.inf)) if rank <= n else float("inf")


def false_alarm_rates(maxima: Array, alpha: float, key: str, resamplings: int = 300) -> dict[int, Estimate]:
    """Mean realised false-alarm rate when n of the successes calibrate and the others are watched, per n.

    Args: maxima: (N,) largest score of every successful episode.
    """
    result = {}
    for n in SIZES:
        if n > len(maxima) - 20:
            continue
        rng, rates = keyed_rng("false alarms", key, n), []
        for _ in range(resamplings):
            order = rng.permutation(len(maxima))
            limit = threshold_at(maxima[order[:n]], alpha)
            rates.append(float((maxima[order[n:]] >= limit).mean()))
        half = 1.96 * float(np.std(rates)) / math.sqrt(resamplings)
        mean = float(np.mean(rates))
        result[n] = Estimate(value=mean, low=mean - half, high=mean + half, n=resamplings)
    return result


class Alarm(NamedTuple):
    """One episode and its first alarm."""

    failed: bool
    length: int
    at: int | None


def first_alarm(scores: Array, threshold: float) -> int | None:
    """First step of `scores` (T,) at or above the threshold; None when there is none."""
    hits = np.flatnonzero(scores >= threshold)
    return int(hits[0]) if len(hits) else None


def alarm_table(alarms: Sequence[Alarm], rate_hz: float) -> dict[str, Any]:
    """Precision, recall and F1 of both classes, earliness, and false alarms per 100 episodes and per hour."""
    failed = np.array([a.failed for a in alarms], bool)
    raised = np.array([a.at is not None for a in alarms], bool)
    bad = [a for a in alarms if a.failed]
    leads = np.array([0.0 if a.at is None else (a.length - a.at) / a.length for a in bad])
    caught = np.array([a.length - a.at for a in bad if a.at is not None], float)
    half = sum(a.at is not None and a.at < a.length / 2 for a in bad)
    hits = int((failed & raised).sum())
    false = int((~failed & raised).sum())
    hours = sum(a.length for a in alarms if not a.failed) / rate_hz / 3600 if rate_hz else float("nan")
    return {
        "recall": proportion(hits, int(failed.sum())).as_dict(),
        "precision": proportion(hits, int(raised.sum())).as_dict(),
        "f1_failure": _f1(failed, raised),
        "f1_success": _f1(~failed, ~raised),
        "recall_half": proportion(half, len(bad)).as_dict(),
        "lead_share": bootstrap(lambda rows: float(leads[rows].mean()), [0] * len(bad), ("lead",), 300).as_dict(),
        "lead_steps_if_caught": float(np.median(caught)) if len(caught) else None,
        "false_alarms_per_100": 100 * false / max(int((~failed).sum()), 1),
        "false_alarms_per_hour": false / hours if hours and np.isfinite(hours) else None,
    }


def _f1(truth: Array, said: Array) -> float | None:
    both = int((truth & said).sum())
    total = int(truth.sum() + said.sum())
    return 2 * both / total if total else None


def precision_at(scores: Array, failed: Array, count: int) -> Estimate:
    """Share of failures, `failed` (N,) bool, among the `count` highest of `scores` (N,) (at most all of them)."""
    top = np.argsort(-scores, kind="stable")[: min(count, len(scores))]
    return proportion(int(failed[top].sum()), len(top))


def average_precision(scores: Array, failed: Array) -> float:
    """Area under precision over recall of `scores` (N,) for `failed` (N,) bool; NaN without failures.

    Chance is the prevalence, so print that beside it.
    """
    if not failed.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = failed[order].cumsum()
    last = np.append(np.diff(scores[order]) != 0, True)
    precision, recall = (hits / np.arange(1, len(hits) + 1))[last], (hits / failed.sum())[last]
    return float((np.diff(recall, prepend=0.0) * precision).sum())
