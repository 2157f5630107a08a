"""The one rule by which a figure counts as shown, everywhere: paired against every control row, the wider interval decides.

A figure is compared with the same episodes' figure under the clock, the task's failure rate and, where perturbations are
known, the condition's failure rate. Each difference has two intervals: by episode (within task and outcome) and by whole
task. The wider of the two decides. Evidence is judged at a step, among the episodes still running there, so that having
finished is no evidence. With fewer than `LEAST` episodes of either outcome nothing is tested: n is printed instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from failsight.core.types import Array
from failsight.evaluation.intervals import Estimate
from failsight.evaluation.ranking import Ranking, auc_draws, auc_estimate, interval

LEAST = 10
"""Failures, and successes, still running below which a figure is left out of headlines and tests."""
CONTROL_ROWS = ("clock", "task_prior", "condition_prior")


class Bootstraps(NamedTuple):
    """One set of resamples for all detectors of a data set, so that differences are paired."""

    episodes: Array
    tasks: Array


class Counts(NamedTuple):
    """Episodes behind a figure."""

    failures: int
    successes: int

    @property
    def enough(self) -> bool:
        """Whether a test on them is worth printing."""
        return min(self) >= LEAST


def count(sets: Sequence[Ranking]) -> Counts:
    """Different episodes in the test sets."""
    failed = {int(u) for r in sets for u in r.unit[r.failed]}
    good = {int(u) for r in sets for u in r.unit[~r.failed]}
    return Counts(len(failed), len(good))


def is_shown(gaps: Iterable[Mapping[str, Any] | None]) -> bool:
    """Whether a figure is ahead of every row it was compared with, beyond the wider interval; never without a row."""
    rows = list(gaps)
    return bool(rows) and all(
        gap is not None and not gap.get("left_out", False) and gap["low"] is not None and gap["low"] > 0 for gap in rows
    )


def differs(estimate: Estimate) -> bool:
    """Whether a paired difference lies on one side of 0 beyond its interval."""
    return bool(estimate.low > 0 or estimate.high < 0)


def figure(sets: Sequence[Ranking], boots: Bootstraps, within: bool) -> dict[str, Any]:
    """AUC in points with both intervals and the numbers of episodes; `left_out` with too few of either outcome."""
    by_episode, by_task = (auc_estimate(sets, weights, within).as_dict() for weights in boots)
    n = count(sets)
    return {
        **by_episode,
        "low_tasks": by_task["low"],
        "high_tasks": by_task["high"],
        **n._asdict(),
        "left_out": not n.enough,
    }


class Difference(NamedTuple):
    """A paired difference of AUCs, in points, with its draws by episode and by task."""

    value: float
    episodes: Array
    tasks: Array


def draw_difference(a: Sequence[Ranking], b: Sequence[Ranking], boots: Bootstraps, within: bool) -> Difference:
    """A - b on the same episodes and resamples."""
    ones = np.ones((1, boots.episodes.shape[1]), np.float32)
    value, by_episode, by_task = (
        100 * (auc_draws(a, weights, within) - auc_draws(b, weights, within)) for weights in (ones, *boots)
    )
    return Difference(float(value[0]), by_episode, by_task)


def mean_difference(parts: Sequence[Difference]) -> Difference:
    """Mean over cells (moments, data sets); a resample without a pair in one cell is left out."""
    return Difference(
        float(np.mean([p.value for p in parts])),
        np.mean([p.episodes for p in parts], axis=0),
        np.mean([p.tasks for p in parts], axis=0),
    )


def paired(difference: Difference, n: Counts) -> dict[str, Any]:
    """JSON form: `low` and `high` are those of the wider interval, `decides` says which; two-sided p of its spread."""
    value, by_episode, by_task = difference
    options = {"episodes": (interval(value, by_episode, n.failures), by_episode)}
    options["tasks"] = (interval(value, by_task, n.failures), by_task)
    decides = max(options, key=lambda name: _width(options[name][0]))
    widest, draws = options[decides]
    spread = float(np.nanstd(draws))
    z = value / spread if spread > 0 else 0.0
    return {
        **widest.as_dict(),
        "n": sum(n),
        "decides": decides,
        **{f"{end}_{name}": e.as_dict()[end] for name, (e, _) in options.items() for end in ("low", "high")},
        "p": float(2 * stats.norm.sf(abs(z))) if np.isfinite(z) else None,
        "left_out": not n.enough,
    }


def _width(estimate: Estimate) -> float:
    width = estimate.high - estimate.low
    return width if np.isfinite(width) else -1.0


def over_controls(
    row: Sequence[Ranking], controls: Mapping[str, Sequence[Ranking]], boots: Bootstraps, within: bool
) -> dict[str, dict[str, Any]]:
    """The figure minus each control row, paired."""
    n = count(row)
    return {name: paired(draw_difference(row, sets, boots, within), n) for name, sets in controls.items()}


def claim(own: Mapping[str, Any], gaps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A headline: the figure, what it is ahead of and whether that is shown, with the sentence that says so."""
    shown = is_shown(gaps.values()) and not own.get("left_out", False)
    against = "; ".join(f"{name.replace('_', ' ')} {_signed(gap)}" for name, gap in gaps.items())
    sentence = f"{_value(own)}, ahead of {against}" if against else f"{_value(own)}, compared with nothing"
    if own.get("left_out", False):
        sentence += f": {own['failures']} failures and {own['successes']} successes still running are too few to test"
    return {"shown": shown, "sentence": sentence + ("" if shown else ": not shown"), "over": dict(gaps)}


def _value(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "no data"
    span = "" if row["low"] is None else f" [{row['low']:.1f}, {row['high']:.1f}]"
    return f"{row['value']:.1f}{span}"


def _signed(gap: Mapping[str, Any]) -> str:
    if gap["value"] is None:
        return "by no data"
    span = "" if gap["low"] is None else f" [{gap['low']:+.1f}, {gap['high']:+.1f}]"
    return f"by {gap['value']:+.1f}{span}"


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values of a family of tests.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    adjusted, largest = dict[str, float](), 0.0
    for rank, name in enumerate(sorted(p, key=lambda n: p[n])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = round(largest, 12)
    return adjusted
