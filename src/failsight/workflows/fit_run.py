"""From a labelled run to a calibrated bundle, with the controls fitted beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.errors import FailsightError
from failsight.core.types import Array
from failsight.episodes.run import Run
from failsight.evaluation.scoring import score_all
from failsight.labels.table import read_labels
from failsight.monitor.bundle import save_bundle
from failsight.monitor.calibration import Calibration, conformal_threshold
from failsight.monitor.senses import usual_of
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import TriggerRule, episode_statistic
from failsight.predictors.baselines import ClockPredictor, TaskPriorPredictor
from failsight.predictors.dataset import (
    FitSplit,
    LabelledSequence,
    build_sequences,
    permute_labels,
    signal_columns,
    split_sequences,
)
from failsight.predictors.features import log_mask
from failsight.predictors.fit_mlp import fit_mlp
from failsight.predictors.fit_recurrent import RecurrentOptions, fit_recurrent, merge_members
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.runtime.pool import run_pool
from failsight.signals.bank import SIGNAL_NAMES
from failsight.workflows.bundle_metrics import held_out_metrics, save_metrics

DEFAULT = "recurrent"
_GAIN_EPISODES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """Dials of a fit."""

    alpha: float = 0.10
    """Episode false-alarm rate to promise."""
    seed: int = 0
    rule: TriggerRule = field(default_factory=TriggerRule)
    """In ticks at 20 Hz; a run at another rate gets a rule that lasts as long."""
    recurrent: RecurrentOptions = field(default_factory=RecurrentOptions)
    controls: bool = True


@dataclass(slots=True, kw_only=True)
class Fitted:
    """Predictors by row name, and the calibration of the default one."""

    predictors: dict[str, Any]
    rules: dict[str, TriggerRule]
    calibrations: dict[str, Calibration]
    split: FitSplit
    permuted: list[Any]
    """Control: single members, each fitted on its own permutation of the labels."""
    trigger_steps: list[int | None]
    """First trigger of every calibration episode: the rate a placebo has to match."""


def refuse_log_options(what: str, **given: bool) -> None:
    """Refuse options that only a fit of one detector knows, so that none is dropped. Raises FailsightError."""
    named = [f"--{name}" for name, value in given.items() if value]
    if named:
        raise FailsightError(
            f"{' and '.join(named)} would change nothing in {what}; leave it out, or fit one detector on one run with "
            "--detector NAME."
        )


def fit_run(run: Run, bundle: Path, options: FitOptions, note: Callable[[str], None], workers: int = 2) -> Fitted:
    """Fit the default predictor and the controls, calibrate, write the bundle.

    Raises CalibrationError when the run is too small or one-sided for the promised rate.
    """
    note("computing signals")
    options = replace(options, rule=options.rule.at(run.meta.action_spec.rate_hz))
    sequences = build_sequences(run, read_labels(run))
    split = split_sequences(sequences, options.seed)
    note(f"fitting on {len(split.train)} episodes, validating on {len(split.validate)}")
    log = note_signals(run, note)
    ensemble, permuted = fit_ensembles(split, options, bundle.parent / "tensorboard", workers, log)
    predictors = {DEFAULT: ensemble} | (fit_baselines(split, options) if options.controls else {})
    note(f"calibrating on {len(split.calibrate)} episodes")
    rules = {name: choose_rule(p, split.validate, options) for name, p in predictors.items()}
    calibrations = {name: calibrate(p, split.calibrate, rules[name], options.alpha) for name, p in predictors.items()}
    chosen = calibrations[DEFAULT]
    scored = score_all(split.calibrate, predictors[DEFAULT], rules[DEFAULT], chosen.threshold)
    save_bundle(
        bundle,
        predictors[DEFAULT],
        rules[DEFAULT],
        Thresholds(pooled=chosen),
        (run.meta.action_spec, run.meta.observation_spec),
        run.meta.policy,
        {"run": str(run.root.name), "episodes": len(sequences), "seed": options.seed, "versions": run.meta.versions},
        usual=usual_of([s.signals for s in split.train]),
    )
    figures = held_out_metrics(scored, run.episodes[0].horizon)
    save_metrics(bundle, f"{len(scored)} calibration episodes of {run.root.name}, which nothing was fitted on", figures)
    return Fitted(
        predictors=predictors,
        rules=rules,
        calibrations=calibrations,
        split=split,
        permuted=permuted,
        trigger_steps=[s.trigger for s in scored],
    )


def note_signals(run: Run, note: Callable[[str], None]) -> Array:
    """(S,) bool: signals of the run whose logarithm is taken; says which ones its robot lacks something for."""
    names = [column.name for column in signal_columns(run)]
    absent = [] if run.meta.signals else [name for name in SIGNAL_NAMES if name not in names]
    if absent:
        note(f"signals this robot lacks something for are left out: {', '.join(absent)}")
    return log_mask(names)


def fit_baselines(split: FitSplit, options: FitOptions) -> dict[str, Any]:
    """The SALUS-style network (where failure types are known), the clock and the task's failure rate."""
    failed = [s.failed for s in split.train]
    typed = any(s.kind >= 0 for s in split.train)
    return {
        **({"salus_mlp": fit_mlp(split.train, split.validate, options.seed)} if typed else {}),
        "clock": ClockPredictor.fit([len(s.signals) for s in split.train], failed),
        "task_prior": TaskPriorPredictor.fit([s.task for s in split.train], failed),
    }


class _Member(NamedTuple):
    """One member to fit: of the real ensemble, or of the permuted-label control."""

    number: int
    permuted: bool


def fit_ensembles(
    split: FitSplit, options: FitOptions, log_dir: Path, workers: int, log: Array | None = None
) -> tuple[Any, list[Any]]:
    """The default predictor and the permuted-label control, members shared out among processes.

    `log` marks the signals to take the logarithm of, by default those of a whole bank. The control is as many single members as the ensemble has, each on another permutation: one permuted fit ranks
    episodes by a random function of the same features, so a single one can land well off 0.5; several show where the
    control is centred and how far it strays.
    """
    tickets = [
        _Member(i, permuted)
        for permuted in (False, True)[: 1 + options.controls]
        for i in range(options.recurrent.members)
    ]
    data = partial(_identity, (split.train, split.validate))
    fitted = dict(run_pool(data, partial(_fit_member, options, log_dir, log), tickets, workers))
    real = [fitted[t] for t in tickets if not t.permuted]
    return merge_members(real), [fitted[t] for t in tickets if t.permuted]


def _identity(value: Any) -> Any:
    return value


def _fit_member(
    options: FitOptions, log_dir: Path, log: Array | None, data: tuple[Any, Any], ticket: _Member
) -> RecurrentPredictor:
    train, validate = data
    if not ticket.permuted:
        folder = log_dir / f"member{ticket.number}"
        return fit_recurrent(train, validate, options.recurrent, folder, indices=(ticket.number,), log=log)
    seed = options.seed + 1000 * (ticket.number + 1)
    single = replace(options.recurrent, members=1, seed=seed)
    return fit_recurrent(permute_labels(train, seed), permute_labels(validate, seed + 1), single, log=log)


def choose_rule(predictor: Predictor, episodes: Sequence[LabelledSequence], options: FitOptions) -> TriggerRule:
    """The trigger rule with its imminent-collision channel scaled to p_fail.

    The gain makes both channels equally rare on successful validation episodes: it is the ratio of their
    (1 - alpha/2) quantiles. The threshold itself is calibrated afterwards, on other episodes. With fewer than 20
    successes, or a predictor without that output, the channel stays off.
    """
    good = [s for s in episodes if not s.failed]
    if len(good) < _GAIN_EPISODES:
        return options.rule
    share = 1 - options.alpha / 2
    only = replace(options.rule, imminent_gain=1e9)
    p_fail = [episode_statistic(s.p_fail, options.rule) for s in score_all(good, predictor, options.rule, np.inf)]
    soon = [episode_statistic(s.alarm, options.rule) / 1e9 for s in score_all(good, predictor, only, np.inf)]
    high, low = np.quantile(p_fail, share), np.quantile(soon, share)
    if not (np.isfinite(high) and 1e-6 < low < high):
        return options.rule
    return replace(options.rule, imminent_gain=float(high / low))


def calibrate(
    predictor: Predictor, episodes: Sequence[LabelledSequence], rule: TriggerRule, alpha: float
) -> Calibration:
    """Split conformal on the post-hysteresis trigger statistic of successful episodes."""
    good = [s for s in episodes if not s.failed]
    scored = score_all(good, predictor, rule, float("inf"))
    return conformal_threshold([episode_statistic(s.alarm, rule) for s in scored], alpha)
