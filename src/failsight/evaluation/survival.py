"""Time to failure beside the clock: does the prediction order who is lost sooner, and how sure may one be of "soon"?

Pairs and steps come from failed episodes before their onset (and, for the Brier score, from successes), one row every few
steps; intervals resample whole episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from failsight.core.types import Array
from failsight.evaluation.intervals import Estimate
from failsight.evaluation.ranking import episode_weights, interval
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.hazard import BINS, EDGES

EVERY = 5


def windows_of(edges: Sequence[int]) -> tuple[int, ...]:
    """Steps ahead at which "lost within so many steps" is judged: the edges of the hazard's bins."""
    return tuple(edges[1:BINS])


WINDOWS = windows_of(EDGES)
"""At 20 Hz and a horizon of 160 steps."""


class TimeRows(NamedTuple):
    """One row per kept step."""

    episode: Array
    step: Array
    remaining: Array
    """Steps to the onset; +inf on a success."""
    predicted: Array
    """Predicted time to failure."""
    within: Array
    """(N, W) predicted probability of being lost within each window."""


def join(parts: Sequence[TimeRows]) -> TimeRows:
    """All rows of several episodes."""
    return TimeRows(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def kept_steps(sequence: LabelledSequence) -> Array:
    """(K,) steps before the onset (all of a success), every fifth."""
    end = len(sequence.signals) if sequence.onset is None else sequence.onset
    return np.arange(0, end, EVERY)


def clock_rows(train: Sequence[LabelledSequence], test: Sequence[LabelledSequence]) -> TimeRows:
    """What the elapsed time alone says: medians and rates among training episodes not yet lost at that step."""
    onset = np.array([np.inf if s.onset is None else s.onset for s in train])
    length = np.array([len(s.signals) for s in train])
    parts, windows = [], windows_of(train[0].edges)
    for i, s in enumerate(test):
        steps = kept_steps(s)
        rows = [_clock_at(t, onset, length, windows) for t in steps]
        if rows:
            ahead, within = zip(*rows, strict=True)
            parts.append(
                TimeRows(np.full(len(steps), i), steps, _remaining(s, steps), np.array(ahead), np.stack(within))
            )
    return join(parts)


def _clock_at(t: int, onset: Array, length: Array, windows: Sequence[int]) -> tuple[float, Array]:
    running = (length > t) & (onset > t)
    ahead = onset[running & np.isfinite(onset)] - t
    rates = [((onset[running] - t <= window).sum() + 0.5) / (running.sum() + 1) for window in windows]
    return float(np.median(ahead)) if len(ahead) else 0.0, np.array(rates)


def _remaining(s: LabelledSequence, steps: Array) -> Array:
    return np.full(len(steps), np.inf) if s.onset is None else (s.onset - steps).astype(float)


def model_rows(test: Sequence[LabelledSequence], predicted: Sequence[tuple[Array, Array]]) -> TimeRows:
    """Rows from (T,) predicted times and (T, W) probabilities per test episode."""
    parts = []
    for i, (s, (time, within)) in enumerate(zip(test, predicted, strict=True)):
        steps = kept_steps(s)
        if len(steps):
            parts.append(TimeRows(np.full(len(steps), i), steps, _remaining(s, steps), time[steps], within[steps]))
    return join(parts)


def c_index_draws(rows: TimeRows, weights: Array) -> Array:
    """(B,) share of pairs of failing episodes in which the one lost sooner was predicted sooner; ties a half."""
    failing = np.isfinite(rows.remaining)
    time, guess, unit = rows.remaining[failing], rows.predicted[failing], rows.episode[failing]
    sooner = (time[:, None] < time[None]) & (unit[:, None] != unit[None])
    right = sooner * ((guess[:, None] < guess[None]) + 0.5 * (guess[:, None] == guess[None]))
    size = weights.shape[1]
    won, possible = (_by_episode(m.astype(np.float64), unit, size) for m in (right, sooner))
    top = np.einsum("bi,ij,bj->b", weights, won, weights, optimize=True)
    bottom = np.einsum("bi,ij,bj->b", weights, possible, weights, optimize=True)
    return np.asarray(np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0))


def _by_episode(pairs: Array, unit: Array, size: int) -> Array:
    """Sum of pairs between every two episodes, (size, size)."""
    member = np.zeros((size, len(unit)))
    member[unit, np.arange(len(unit))] = 1.0
    return np.asarray(member @ pairs @ member.T)


def brier_draws(rows: TimeRows, weights: Array, windows: Sequence[int] = WINDOWS) -> Array:
    """(B,) Brier score of "lost within the window", mean over windows and rows."""
    truth = rows.remaining[:, None] <= np.array(windows)[None]
    error = ((rows.within - truth) ** 2).mean(1)
    per = weights[:, rows.episode]
    return np.asarray((per * error).sum(1) / per.sum(1))


class Beside(NamedTuple):
    """A figure of the model, of the clock, and their paired difference."""

    model: Estimate
    clock: Estimate
    difference: Estimate


def beside_clock(
    model: TimeRows,
    clock: TimeRows,
    failed: Sequence[bool],
    measure: str,
    key: str,
    windows: Sequence[int] = WINDOWS,
) -> Beside:
    """C-index (`c_index`) or integrated Brier score (`brier`) of both, with intervals by episode."""
    draws: dict[str, Callable[[TimeRows, Array], Array]] = {
        "c_index": c_index_draws,
        "brier": partial(brier_draws, windows=windows),
    }
    draw = draws[measure]
    weights = episode_weights([str(f) for f in failed], (key, measure), 300)
    once = np.ones((1, weights.shape[1]), np.float32)
    a, b = float(draw(model, once)[0]), float(draw(clock, once)[0])
    many_a, many_b = draw(model, weights), draw(clock, weights)
    n = len(np.unique(model.episode))
    return Beside(interval(a, many_a, n), interval(b, many_b, n), interval(a - b, many_a - many_b, n))
