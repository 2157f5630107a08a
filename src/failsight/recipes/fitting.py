"""From a labelled run to a calibrated bundle, with the controls fitted beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failsight.core.contracts import Predictor
from failsight.episodes.run import Run
from failsight.evaluation.scoring import score_all
from failsight.labels.table import read_labels
from failsight.monitor.bundle import save_bundle
from failsight.monitor.calibration import Calibration, conformal_threshold
from failsight.monitor.trigger import TriggerRule, episode_statistic
from failsight.predictors.baselines import ClockPredictor, TaskPriorPredictor
from failsight.predictors.dataset import FitSplit, Sequence_, build_sequences, permute_labels, split_sequences
from failsight.predictors.fit_mlp import fit_mlp
from failsight.predictors.fit_recurrent import RecurrentOptions, fit_recurrent

DEFAULT = "recurrent"
CONTROLS = ("clock", "task_prior", "permuted")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """Dials of a fit."""

    alpha: float = 0.10
    """Episode false-alarm rate to promise."""
    seed: int = 0
    rule: TriggerRule = TriggerRule()
    recurrent: RecurrentOptions = RecurrentOptions()
    controls: bool = True


@dataclass(slots=True, kw_only=True)
class Fitted:
    """Predictors by row name, and the calibration of the default one."""

    predictors: dict[str, Any]
    calibrations: dict[str, Calibration]
    split: FitSplit
    trigger_steps: list[int | None]
    """First trigger of every calibration episode: the rate a placebo has to match."""


def fit_run(
    run: Run, bundle: Path, options: FitOptions, note: Callable[[str], None]
) -> Fitted:
    """Fit the default predictor and the controls, calibrate, write the bundle.

    Raises CalibrationError when the run is too small or one-sided for the promised rate.
    """
    note("computing signals")
    sequences = build_sequences(run, read_labels(run))
    split = split_sequences(sequences, options.seed)
    note(f"fitting on {len(split.train)} episodes, validating on {len(split.validate)}")
    predictors = fit_predictors(split, options, bundle.parent / "tensorboard", note)
    note(f"calibrating on {len(split.calibrate)} episodes")
    calibrations = {name: calibrate(p, split.calibrate, options) for name, p in predictors.items()}
    chosen = calibrations[DEFAULT]
    scored = score_all(split.calibrate, predictors[DEFAULT], options.rule, chosen.threshold)
    save_bundle(
        bundle,
        predictors[DEFAULT],
        options.rule,
        chosen,
        (run.meta.action_spec, run.meta.observation_spec),
        run.meta.policy,
        {"run": str(run.root.name), "episodes": len(sequences), "seed": options.seed, "versions": run.meta.versions},
    )
    return Fitted(
        predictors=predictors,
        calibrations=calibrations,
        split=split,
        trigger_steps=[s.trigger for s in scored],
    )


def fit_predictors(
    split: FitSplit, options: FitOptions, log_dir: Path, note: Callable[[str], None]
) -> dict[str, Any]:
    """The default predictor, the SALUS-style network and the controls."""
    recurrent = options.recurrent
    predictors: dict[str, Any] = {
        DEFAULT: fit_recurrent(split.train, split.validate, recurrent, log_dir / DEFAULT)
    }
    if not options.controls:
        return predictors
    note("fitting the controls: SALUS network, clock, task prior, permuted labels")
    predictors["salus_mlp"] = fit_mlp(split.train, split.validate, options.seed)
    failed = [s.failed for s in split.train]
    predictors["clock"] = ClockPredictor.fit([len(s.signals) for s in split.train], failed)
    predictors["task_prior"] = TaskPriorPredictor.fit([s.task for s in split.train], failed)
    predictors["permuted"] = fit_recurrent(
        permute_labels(split.train, options.seed), permute_labels(split.validate, options.seed + 1), recurrent
    )
    return predictors


def calibrate(predictor: Predictor, episodes: tuple[Sequence_, ...], options: FitOptions) -> Calibration:
    """Split conformal on the post-hysteresis trigger statistic of successful episodes."""
    good = [s for s in episodes if not s.failed]
    scored = score_all(good, predictor, options.rule, float("inf"))
    return conformal_threshold([episode_statistic(s.p_fail, options.rule) for s in scored], options.alpha)
