"""Fitting the evidence ledger: closed formulas and two small convex problems, no seeds, well under a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array
from failsight.predictors.dataset import LabelledSequence, failure_rates
from failsight.predictors.evidence import RunningEvidence, clipped
from failsight.predictors.ledger import LedgerPredictor
from failsight.predictors.missing import filled, usual_values
from failsight.predictors.stepscale import enough, fit_step_scale, task_offsets
from failsight.predictors.transforms import log_positive, pad, positive_columns, whitening

CHUNK_ERROR = ("chunk_mse", "overlap")
"""Names of the squared difference of consecutive chunks where both plan: the unlearned member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerOptions:
    """Dials of the fit; the defaults come from the study, not from the data at hand."""

    strength: float = 0.05
    """Inverse L2 strength of the signal model, per training step of an episode."""
    hidden_strength: float = 0.008
    components: int = 32
    shrink: float = 0.5
    """k in units of the median successful length, at least 10 steps."""
    points: int = 14
    """Training steps per episode, spread from a tenth to the whole of the median successful length."""
    centre_tasks: bool = True
    """Remove each task's mean: better within a task, worse for ranking episodes of unknown tasks against each other."""
    members: tuple[str, ...] = ("signals", "hidden", "running_mean")
    only: tuple[str, ...] = ()
    """Names of the signals that may be read; empty: all."""
    aligned: bool = False
    """Keep every signal of `only` in that order, even one that never varies here, so that weights can be shared."""


class _Plan(NamedTuple):
    """What every member needs to know."""

    tasks: Array
    failed: Array
    alive: Array
    """(N, P) whether the episode still runs at each training step."""
    points: Array
    """(P,) training steps."""
    weights: Array
    """(N,) episode weights: within every task both outcomes weigh the same."""
    shrink: float
    smooth: int


class _Member(NamedTuple):
    """A member at the training steps (N, P): with its task's offset removed, and as if the task were unknown."""

    known: Array
    unknown: Array


def fit_ledger(
    train: Sequence[LabelledSequence],
    columns: Sequence[str],
    options: LedgerOptions | None = None,
    weights: Array | None = None,
) -> LedgerPredictor:
    """Fit on training episodes with signals named `columns`; the same inputs give bit-equal arrays.

    Members whose input is missing (no hidden states, no chunk error) are left out. `weights` (4 S,) of the signal
    member, when given, are used as they are: learned on other policies, while everything is standardised on this one.

    Raises EpisodeDataError when nothing is left.
    """
    options = options or LedgerOptions()
    plan, raw, arrays = _prepare(train, columns, options)
    rows: dict[str, _Member] = {}
    if "signals" in options.members and len(arrays["signal.columns"]):
        known, unknown = _signal_statistics(raw, plan, options, arrays)
        for group, statistics in (("member", known), ("unknown", unknown)):
            own = _logistic([(statistics, plan)], options.strength) if weights is None else weights
            arrays[f"{group}.signal_weights"] = own
        rows["signals"] = _Member(known @ arrays["member.signal_weights"], unknown @ arrays["unknown.signal_weights"])
    if "hidden" in options.members and train[0].hidden is not None:
        rows["hidden"] = _fit_hidden(train, plan, options, arrays)
    chunk = _chunk_column(raw, columns, options)
    if "running_mean" in options.members and chunk is not None:
        mean = _running_mean(raw[..., chunk], plan)
        rows["running_mean"] = _Member(mean, mean)
        arrays["mean.column"] = np.array(chunk)
        arrays["mean.usual"] = np.array(np.nanmean(raw[..., chunk]))
    if not rows:
        raise EpisodeDataError("No signal varies and no hidden state was recorded; there is nothing to learn from.")
    for name, member in rows.items():
        for group, values in (("member", member.known), ("unknown", member.unknown)):
            seen = values[plan.alive]
            arrays[f"{group}.{name}"] = np.array([seen.mean(), max(float(seen.std()), 1e-9)])
    return LedgerPredictor(arrays)


def shared_weights(
    sources: Sequence[tuple[Sequence[LabelledSequence], Sequence[str]]], options: LedgerOptions
) -> Array:
    """(4 S,) one set of signal weights from several policies, each standardised on itself; `options.only` names the S
    signals they have in common, which must be in the same order everywhere.
    """
    parts = []
    for train, columns in sources:
        plan, raw, arrays = _prepare(train, columns, options)
        parts.append((_signal_statistics(raw, plan, options, arrays)[0], plan))
    return _logistic(parts, options.strength)


def _prepare(
    train: Sequence[LabelledSequence], columns: Sequence[str], options: LedgerOptions
) -> tuple[_Plan, Array, dict[str, Array]]:
    """Plan, transformed signals (N, T, S), and the arrays that standardise them."""
    plan = _plan(train, options)
    raw = pad([s.signals for s in train])
    log = positive_columns(raw)
    raw = log_positive(raw, log)
    arrays: dict[str, Array] = {"shrink": np.array(plan.shrink), "signal.log": log}
    scale = fit_step_scale(raw, plan.smooth)
    usable = np.array([(scale.scale[:, i] > 0).any() for i in range(len(columns))])
    names = options.only or tuple(columns)
    order = [list(columns).index(name) for name in names if name in columns]
    chosen = np.array([i for i in order if usable[i] or options.aligned], int)
    arrays |= {
        "signal.columns": chosen,
        "signal.mean": scale.mean[:, chosen],
        "signal.scale": scale.scale[:, chosen],
    }
    return plan, raw, arrays


def _chunk_column(raw: Array, columns: Sequence[str], options: LedgerOptions) -> int | None:
    """Position of the chunk error, None when the log has none that may be read."""
    for name in CHUNK_ERROR:
        if name in columns and (not options.only or name in options.only):
            at = list(columns).index(name)
            seen = raw[..., at][np.isfinite(raw[..., at])]
            if len(seen) and seen.max() > seen.min():
                return at
    return None


def _plan(train: Sequence[LabelledSequence], options: LedgerOptions) -> _Plan:
    tasks = np.array([s.task for s in train])
    failed = np.array([s.failed for s in train])
    lengths = np.array([len(s.signals) for s in train])
    usual = float(np.median(lengths[~failed])) if (~failed).any() else float(np.median(lengths))
    points = np.unique(np.linspace(0.1 * usual, usual, options.points).round().astype(int).clip(1) - 1)
    rates = failure_rates(train)
    p = np.array([rates.tasks[task] for task in tasks])
    return _Plan(
        tasks=tasks,
        failed=failed,
        alive=lengths[:, None] > points,
        points=points,
        weights=np.where(failed, 1 - p, p),
        shrink=max(10.0, options.shrink * usual),
        smooth=7 if usual >= 30 else 3,
    )


def _signal_statistics(
    raw: Array, plan: _Plan, options: LedgerOptions, arrays: dict[str, Array]
) -> tuple[Array, Array]:
    """Adds task offsets to `arrays`; returns the statistics at the training steps (N, P, 4 S), with the task's offset
    removed and without.
    """
    columns, steps = arrays["signal.columns"], raw.shape[1]
    rows = np.minimum(np.arange(steps), len(arrays["signal.mean"]) - 1)
    z = (raw[..., columns] - arrays["signal.mean"][rows]) * arrays["signal.scale"][rows]
    unknown = _statistics(clipped(z), plan, energy=True)
    if not options.centre_tasks:
        return unknown, unknown
    offsets, own = task_offsets(z, plan.tasks)
    arrays |= {f"signal.offset.{task}": value for task, value in offsets.items()}
    return _statistics(clipped(z - own), plan, energy=True), unknown


def _fit_hidden(
    train: Sequence[LabelledSequence], plan: _Plan, options: LedgerOptions, arrays: dict[str, Array]
) -> _Member:
    """PCA after removing the mean per step and per task, then as for the signals."""
    raw = np.concatenate([np.asarray(s.hidden, np.float32) for s in train])
    usual = usual_values(raw)
    stacked = filled(raw, usual)
    lengths = np.array([len(s.signals) for s in train])
    step = np.concatenate([np.arange(n) for n in lengths])
    episode = np.repeat(np.arange(len(train)), lengths)
    centre = _step_means(stacked, step, len(train))
    residual = stacked - centre[np.minimum(step, len(centre) - 1)]
    offsets, own = _hidden_offsets(residual, episode, plan, options.centre_tasks)
    basis = whitening(residual - own[episode], options.components)
    unknown = residual @ basis.T
    shift = own @ basis.T
    known = pad([unknown[episode == i] - shift[i] for i in range(len(train))])
    statistics = _statistics(clipped(known), plan, energy=False)
    away = _statistics(clipped(pad([unknown[episode == i] for i in range(len(train))])), plan, energy=False)
    arrays |= {"hidden.basis": basis, "hidden.usual": usual.astype(np.float32)}
    arrays["hidden.mean"] = centre @ basis.T
    arrays |= {f"hidden.offset.{task}": basis @ value for task, value in offsets.items()}
    for group, rows in (("member", statistics), ("unknown", away)):
        arrays[f"{group}.hidden_weights"] = _logistic([(rows, plan)], options.hidden_strength)
    return _Member(statistics @ arrays["member.hidden_weights"], away @ arrays["unknown.hidden_weights"])


def _step_means(stacked: Array, step: Array, episodes: int) -> Array:
    """(T, D) mean among episodes still running, held once too few are left."""
    running = np.bincount(step)
    last = max(1, int((running >= enough(episodes)).sum()))
    return np.stack([stacked[step == t].mean(0) for t in range(last)])


def _hidden_offsets(residual: Array, episode: Array, plan: _Plan, centre: bool) -> tuple[dict[str, Array], Array]:
    """Per task its mean hidden state (D,), shrunken by 2 episodes, and per training episode the same without itself."""
    count = len(plan.tasks)
    means = np.zeros((count, residual.shape[1]), np.float32)
    if not centre:
        return {}, means
    for i in range(count):
        means[i] = residual[episode == i].mean(0)
    offsets, own = {}, np.zeros_like(means)
    for task in np.unique(plan.tasks):
        rows = plan.tasks == task
        total = means[rows].sum(0)
        offsets[str(task)] = total / (rows.sum() + 2)
        own[rows] = (total - means[rows]) / (rows.sum() + 1)
    return offsets, own


def _statistics(z: Array, plan: _Plan, energy: bool) -> Array:
    """Running evidence of all episodes side by side at the training steps: (N, T, S) -> (N, P, F)."""
    stream = RunningEvidence(z.shape[::2], plan.shrink, energy)
    wanted = {int(t): i for i, t in enumerate(plan.points)}
    result = np.zeros((len(z), len(plan.points), RunningEvidence.width(z.shape[2], energy)))
    for t in range(min(z.shape[1], int(plan.points[-1]) + 1)):
        statistics = stream.update(z[:, t])
        if t in wanted:
            result[:, wanted[t]] = statistics
    return result


def _logistic(parts: Sequence[tuple[Array, _Plan]], strength: float) -> Array:
    """(F,) weights telling failing from succeeding episodes of the same task; 0 where a class is missing."""

    def rows(values: Array, plan: _Plan) -> Array:
        return np.repeat(values[:, None], len(plan.points), 1)[plan.alive]

    x = np.concatenate([statistics[plan.alive] for statistics, plan in parts])
    y = np.concatenate([rows(plan.failed, plan) for _, plan in parts])
    if y.all() or not y.any():
        return np.zeros(x.shape[1])
    weight = np.concatenate([rows(plan.weights, plan) for _, plan in parts])
    model = LogisticRegression(C=strength / len(parts[0][1].points), max_iter=300, tol=1e-6)
    model.fit(x, y, sample_weight=weight)
    return np.asarray(model.coef_[0])


def _running_mean(log_error: Array, plan: _Plan) -> Array:
    """Running mean at the training steps (N, P); a missing value counts as the usual one."""
    filled = np.where(np.isfinite(log_error), log_error, np.nanmean(log_error))
    mean = filled.cumsum(1) / np.arange(1, filled.shape[1] + 1)
    return np.asarray(mean[:, plan.points])
