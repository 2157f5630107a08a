"""From a labelled run to a calibrated bundle, with the controls fitted beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from failsight.core.contracts import Predictor
from failsight.episodes.run import Run
from failsight.evaluation.scoring import score_all
from failsight.labels.table import read_labels
from failsight.monitor.bundle import save_bundle
from failsight.monitor.calibration import Calibration, conformal_threshold
from failsight.monitor.trigger import TriggerRule, episode_statistic
from failsight.predictors.baselines import ClockPredictor, TaskPriorPredictor
from failsight.predictors.dataset import FitSplit, LabelledSequence, build_sequences, permute_labels, split_sequences
from failsight.predictors.fit_mlp import fit_mlp
from failsight.predictors.fit_recurrent import RecurrentOptions, fit_recurrent

DEFAULT = "recurrent"
_GAIN_EPISODES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """Dials of a fit."""

    alpha: float = 0.10
    """Episode false-alarm rate to promise."""
    seed: int = 0
    rule: TriggerRule = field(default_factory=TriggerRule)
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


def fit_run(run: Run, bundle: Path, options: FitOptions, note: Callable[[str], None]) -> Fitted:
    """Fit the default predictor and the controls, calibrate, write the bundle.

    Raises CalibrationError when the run is too small or one-sided for the promised rate.
    """
    note("computing signals")
    sequences = build_sequences(run, read_labels(run))
    split = split_sequences(sequences, options.seed)
    note(f"fitting on {len(split.train)} episodes, validating on {len(split.validate)}")
    predictors = fit_predictors(split, options, bundle.parent / "tensorboard", note)
    permuted = fit_permuted(split, options)
    note(f"calibrating on {len(split.calibrate)} episodes")
    rules = {name: choose_rule(p, split.validate, options) for name, p in predictors.items()}
    calibrations = {name: calibrate(p, split.calibrate, rules[name], options.alpha) for name, p in predictors.items()}
    chosen = calibrations[DEFAULT]
    scored = score_all(split.calibrate, predictors[DEFAULT], rules[DEFAULT], chosen.threshold)
    save_bundle(
        bundle,
        predictors[DEFAULT],
        rules[DEFAULT],
        chosen,
        (run.meta.action_spec, run.meta.observation_spec),
        run.meta.policy,
        {"run": str(run.root.name), "episodes": len(sequences), "seed": options.seed, "versions": run.meta.versions},
    )
    return Fitted(
        predictors=predictors,
        rules=rules,
        calibrations=calibrations,
        split=split,
        permuted=permuted,
        trigger_steps=[s.trigger for s in scored],
    )


def fit_predictors(split: FitSplit, options: FitOptions, log_dir: Path, note: Callable[[str], None]) -> dict[str, Any]:
    """The default predictor, the SALUS-style network and the controls."""
    recurrent = options.recurrent
    predictors: dict[str, Any] = {DEFAULT: fit_recurrent(split.train, split.validate, recurrent, log_dir / DEFAULT)}
    if not options.controls:
        return predictors
    note("fitting the controls: SALUS network, clock, task prior, permuted labels")
    predictors["salus_mlp"] = fit_mlp(split.train, split.validate, options.seed)
    failed = [s.failed for s in split.train]
    predictors["clock"] = ClockPredictor.fit([len(s.signals) for s in split.train], failed)
    predictors["task_prior"] = TaskPriorPredictor.fit([s.task for s in split.train], failed)
    return predictors


def fit_permuted(split: FitSplit, options: FitOptions) -> list[Any]:
    """The permuted-label control: as many members as the ensemble, each on another permutation.

    One permuted fit ranks episodes by a random function of the same features, so a single one can land well off 0.5;
    several show where the control is centred and how far it strays.
    """
    fits = []
    for i in range(options.recurrent.members if options.controls else 0):
        seed = options.seed + 1000 * (i + 1)
        single = replace(options.recurrent, members=1, seed=seed)
        fits.append(fit_recurrent(permute_labels(split.train, seed), permute_labels(split.validate, seed + 1), single))
    return fits


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
