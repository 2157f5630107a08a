"""AUCs over many splits at once, with one bootstrap for all: paired between detectors, by episode or by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from failsight.core.rng import keyed_rng
from failsight.core.types import Array
from failsight.evaluation.intervals import Estimate


class Ranking(NamedTuple):
    """Scores of one test set; units are episode numbers of the whole data set."""

    unit: Array
    score: Array
    failed: Array
    task: Array


def episode_weights(strata: Sequence[str], key: tuple[str | int, ...], draws: int = 500) -> Array:
    """(draws, N) resampling counts of episodes, drawn within their stratum (task and outcome)."""
    labels, rng = np.array(strata), keyed_rng("weights", *key)
    weights = np.zeros((draws, len(labels)), np.float32)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        weights[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=draws)
    return weights


def task_weights(tasks: Sequence[str], key: tuple[str | int, ...], draws: int = 500) -> Array:
    """(draws, N) counts when whole tasks are drawn: how much depends on which tasks were at hand."""
    labels, rng = np.array(tasks), keyed_rng("task weights", *key)
    names, index = np.unique(labels, return_inverse=True)
    return rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)[:, index].astype(np.float32)


def auc_draws(rankings: Sequence[Ranking], weights: Array, within: bool) -> Array:
    """(B,) mean over test sets of the weighted AUC; NaN where no test set has a pair.

    Pairs are a failure and a success, of the same task when `within`; ties count a half.
    """
    totals = np.zeros(len(weights))
    counts = np.zeros(len(weights))
    for r in rankings:
        bad, good = r.failed, ~r.failed
        if not bad.any() or not good.any():
            continue
        gap = r.score[bad][:, None] - r.score[good][None]
        wins = (gap > 0) + 0.5 * (gap == 0)
        pairs = np.ones_like(wins)
        if within:
            pairs = (r.task[bad][:, None] == r.task[good][None]).astype(float)
            wins = wins * pairs
        up, down = weights[:, r.unit[bad]], weights[:, r.unit[good]]
        won = ((up @ wins.astype(np.float32)) * down).sum(1)
        possible = ((up @ pairs.astype(np.float32)) * down).sum(1)
        usable = possible > 0
        totals[usable] += won[usable] / possible[usable]
        counts[usable] += 1
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def auc_estimate(rankings: Sequence[Ranking], weights: Array, within: bool = False) -> Estimate:
    """Mean AUC over the test sets in points (0-100), with its interval from `weights` (B, N)."""
    ones = np.ones((1, weights.shape[1]), np.float32)
    value = float(auc_draws(rankings, ones, within)[0])
    units = np.unique(np.concatenate([r.unit for r in rankings])) if rankings else np.zeros(0)
    return interval(value, auc_draws(rankings, weights, within), len(units), 100.0)


def difference(
    a: Sequence[Ranking], b: Sequence[Ranking], weights: Array, within: bool = False
) -> tuple[Estimate, float]:
    """Paired difference a - b in points, its interval from `weights` (B, N), and the two-sided bootstrap p-value."""
    ones = np.ones((1, weights.shape[1]), np.float32)
    value = float(auc_draws(a, ones, within)[0] - auc_draws(b, ones, within)[0])
    draws = auc_draws(a, weights, within) - auc_draws(b, weights, within)
    kept = draws[np.isfinite(draws)]
    if not len(kept):
        return interval(value, draws, 0, 100.0), float("nan")
    tail = min((kept <= 0).mean(), (kept >= 0).mean())
    p = min(1.0, 2 * max(float(tail), 1 / (len(kept) + 1)))
    return interval(value, draws, len(kept), 100.0), p


def interval(value: float, draws: Array, n: int, scale: float = 1.0) -> Estimate:
    """Percentile interval of bootstrap `draws` (B,); unbounded (NaN) with fewer than 20 that are finite."""
    kept = draws[np.isfinite(draws)]
    if len(kept) < 20 or not np.isfinite(value):
        return Estimate(value=scale * value, low=float("nan"), high=float("nan"), n=n)
    low, high = np.quantile(kept, [0.025, 0.975])
    return Estimate(value=scale * value, low=scale * float(low), high=scale * float(high), n=n)
