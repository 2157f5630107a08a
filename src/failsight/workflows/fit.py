"""From a labelled run to a calibrated bundle: read, split, learn, calibrate, save, judge.

The steps are the same whatever the data: our own runs, whose onsets and types the recurrent ensemble learns beside its
controls (`fit_run`), and runs of signals or logs with any detector of the table (`fit_log`). What differs is what is
learned and how much the calibration may lean on: `Read` travels through all steps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from failsight.causes.familiar import Familiar
from failsight.core.contracts import Predictor
from failsight.core.errors import CalibrationError, EpisodeDataError, FailsightError
from failsight.episodes.run import Run
from failsight.evaluation.judging import DataSet, facts_of, map_of, trace
from failsight.evaluation.scoring import score_all
from failsight.labels.table import read_labels
from failsight.monitor.bundle import Bundle, save_bundle
from failsight.monitor.calibrate import (
    Calibrated,
    few_successes,
    pooled_threshold,
    rule_of,
    task_thresholds,
    usual_band,
    with_imminent,
)
from failsight.monitor.calibration import Calibration
from failsight.monitor.senses import usual_of
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.dataset import (
    FitSplit,
    LabelledSequence,
    build_sequences,
    signal_columns,
    split_sequences,
)
from failsight.predictors.detector import Detector, FitData
from failsight.predictors.find_detector import find_detector
from failsight.workflows.bundle_metrics import drop_metrics, held_out_metrics, save_metrics
from failsight.workflows.familiar import Ordinary, learn_familiar
from failsight.workflows.log_thresholds import provisional_threshold

if TYPE_CHECKING:
    from failsight.workflows.fit_ensemble import FitOptions

DEFAULT = "recurrent"
_CALIBRATE = 0.30
"""Share of the episodes that calibrate; see `split_sequences`."""
_ONLY_IMMINENT = 1e9
"""A gain at which the imminent-collision channel drowns the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFitOptions:
    """Dials of a fit."""

    detector: str = "blend"
    alpha: float = 0.10
    seed: int = 0
    probability: Literal["platt", "isotonic"] = "platt"
    band: bool = False
    """Judge deviations from a band over time instead of the evidence itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A labelled run, read and split: what every later step takes its episodes from."""

    run: Run
    data: DataSet
    split: FitSplit
    seed: int

    def fit_data(self) -> FitData:
        """What a detector learns from."""
        return FitData(self.split.train, self.data.columns, self.seed, self.split.validate)


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


@dataclass(slots=True, kw_only=True)
class LogFitted:
    """What a fit of a detector leaves."""

    bundle: Path
    read: Read
    predictor: Predictor
    calibrated: Calibrated

    @property
    def data(self) -> DataSet:
        """All episodes."""
        return self.read.data

    @property
    def split(self) -> FitSplit:
        """Which of them were learned from, validated and calibrated on."""
        return self.read.split

    @property
    def rule(self) -> TriggerRule:
        """When an alarm is raised."""
        return self.calibrated.rule

    @property
    def thresholds(self) -> Thresholds:
        """From which evidence on, by task."""
        return self.calibrated.thresholds


def refuse_log_options(what: str, **given: bool) -> None:
    """Refuse options that only a fit of one detector knows, so that none is dropped. Raises FailsightError."""
    named = [f"--{name}" for name, value in given.items() if value]
    if named:
        raise FailsightError(
            f"{' and '.join(named)} would change nothing in {what}; leave it out, or fit one detector on one run with "
            "--detector NAME."
        )


def read_data(run: Run, sampling: bool = False) -> DataSet:
    """A labelled run as a data set; `sampling` adds the columns of the published sampling detectors.

    Raises EpisodeDataError when it has no scored episode.
    """
    sequences = build_sequences(run, read_labels(run), sampling)
    if not sequences:
        raise EpisodeDataError(f"{run.root} has no scored episode.")
    return DataSet(
        name=run.root.name,
        columns=signal_columns(run, sampling),
        sequences=tuple(sequences),
        facts=facts_of(sequences, run.episodes[0].horizon),
        rate_hz=run.meta.action_spec.rate_hz,
    )


def left_out(run: Run) -> str:
    """How many episodes nothing is learned from or judged by, and how they ended; empty when there is none."""
    counts = Counter(str(meta.outcome) for meta in run.episodes if not meta.scored)
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    return f"{told} of {len(run.episodes)} episodes, of which nobody can say success or failure" if told else ""


def note_left_out(run: Run, note: Callable[[str], None]) -> None:
    """Say it, if there is any."""
    if told := left_out(run):
        note(f"left out: {told}")


def read(data: DataSet, run: Run, seed: int) -> Read:
    """Split a run that was read."""
    return Read(run=run, data=data, split=split_sequences(list(data.sequences), seed), seed=seed)


def require_enough(sequences: Sequence[LabelledSequence], alpha: float) -> None:
    """Refuse a fit that could promise nothing, saying how many more episodes it takes.

    Raises CalibrationError.
    """
    failures = sum(s.failed for s in sequences)
    successes = len(sequences) - failures
    needed = math.ceil(math.ceil(1 / alpha - 1) / _CALIBRATE)
    if failures < 4 or successes < needed:
        wants = []
        if failures < 4:
            wants.append(f"{4 - failures} more failures (4 are the least to learn from, 20 a fair start)")
        if successes < needed:
            wants.append(f"{needed - successes} more successes ({needed} for a false-alarm rate of {alpha:g})")
        raise CalibrationError(
            f"{len(sequences)} episodes with {failures} failures are too few. Record {' and '.join(wants)}, "
            f"or accept a larger --alpha."
        )
    if all(not np.isfinite(s.signals).any() for s in sequences):
        raise EpisodeDataError("No signal of this run has a finite value; there is nothing to learn from.")


def save(folder: Path, read: Read, predictor: Any, calibrated: Calibrated, familiar: Familiar | None = None) -> None:
    """Write the bundle of a fit; figures of an older one go."""
    meta = read.run.meta
    provenance = {
        "run": read.run.root.name,
        "episodes": len(read.data.sequences),
        "seed": read.seed,
        "versions": meta.versions,
    }
    bundle = Bundle(
        predictor=predictor,
        rule=calibrated.rule,
        thresholds=calibrated.thresholds,
        action_spec=meta.action_spec,
        observation_spec=meta.observation_spec,
        policy=meta.policy,
        provenance=provenance,
        signals=meta.signals,
        probability=calibrated.probability,
        band=calibrated.band,
        usual=usual_of([s.signals for s in read.split.train]),
        familiar=familiar,
    )
    save_bundle(folder, bundle)
    drop_metrics(folder)


def fit_run(
    run: Run,
    bundle: Path,
    options: FitOptions,
    note: Callable[[str], None],
    workers: int = 2,
    ordinary: Ordinary | None = None,
) -> Fitted:
    """Fit the default predictor and the controls, calibrate, write the bundle.

    Raises CalibrationError when the run is too small or one-sided for the promised rate, EpisodeDataError when it has no
    scored episode.
    """
    from failsight.workflows.fit_ensemble import (  # torch, which logs need not
        fit_baselines,
        fit_ensembles,
        note_signals,
    )

    note_left_out(run, note)
    familiar = learn_familiar(run, ordinary or Ordinary(), note)
    note("computing signals")
    options = replace(options, rule=options.rule.at(run.meta.action_spec.rate_hz))
    own = read(read_data(run), run, options.seed)
    split = own.split
    note(f"fitting on {len(split.train)} episodes, validating on {len(split.validate)}")
    log = note_signals(run, note)
    ensemble, permuted = fit_ensembles(split, options, bundle.parent / "tensorboard", workers, log)
    predictors = {DEFAULT: ensemble} | (fit_baselines(split, options) if options.controls else {})
    note(f"calibrating on {len(split.calibrate)} episodes")
    rules = {name: choose_rule(p, split.validate, options) for name, p in predictors.items()}
    calibrations = {name: calibrate(p, split.calibrate, rules[name], options.alpha) for name, p in predictors.items()}
    chosen = calibrations[DEFAULT]
    scored = score_all(split.calibrate, ensemble, rules[DEFAULT], chosen.threshold)
    save(bundle, own, ensemble, Calibrated(rule=rules[DEFAULT], thresholds=Thresholds(pooled=chosen)), familiar)
    figures = held_out_metrics(scored, own.data.facts.horizon)
    save_metrics(bundle, f"{len(scored)} calibration episodes of {run.root.name}, which nothing was fitted on", figures)
    return Fitted(
        predictors=predictors,
        rules=rules,
        calibrations=calibrations,
        split=split,
        permuted=permuted,
        trigger_steps=[s.trigger for s in scored],
    )


def choose_rule(predictor: Predictor, episodes: Sequence[LabelledSequence], options: FitOptions) -> TriggerRule:
    """The trigger rule with its imminent-collision channel scaled to p_fail (`with_imminent`) on successful episodes."""
    good = [s for s in episodes if not s.failed]
    only = replace(options.rule, imminent_gain=_ONLY_IMMINENT)
    p_fail = [s.p_fail for s in score_all(good, predictor, options.rule, np.inf)]
    imminent = [s.alarm / _ONLY_IMMINENT for s in score_all(good, predictor, only, np.inf)]
    return with_imminent(options.rule, p_fail, imminent, options.alpha)


def calibrate(
    predictor: Predictor, episodes: Sequence[LabelledSequence], rule: TriggerRule, alpha: float
) -> Calibration:
    """One threshold for all tasks, from the successful episodes (`pooled_threshold`)."""
    good = [s for s in episodes if not s.failed]
    return pooled_threshold([s.alarm for s in score_all(good, predictor, rule, np.inf)], rule, alpha)


def fit_log(run: Run, bundle: Path, options: LogFitOptions, note: Callable[[str], None]) -> LogFitted:
    """Fit, calibrate and save one detector.

    Raises CalibrationError when the run is too small or one-sided for the promised rate, EpisodeDataError when it lacks
    what the detector needs.
    """
    return fit_with(find_detector(options.detector), run, bundle, options, note)


def fit_with(
    detector: Detector, run: Run, bundle: Path, options: LogFitOptions, note: Callable[[str], None]
) -> LogFitted:
    """`fit_log` for a detector that is not in the table; `options.detector` only names it in messages."""
    note_left_out(run, note)
    data = read_data(run)
    require_enough(data.sequences, options.alpha)
    log = read(data, run, options.seed)
    require_for(detector, log, options.detector)
    _note_data(data, note)
    predictor = detector.fit(log.fit_data())
    calibrated = calibrate_tasks(detector, predictor, log, options, note)
    save(bundle, log, predictor, calibrated)
    return LogFitted(bundle=bundle, read=log, predictor=predictor, calibrated=calibrated)


def require_for(detector: Detector, read: Read, name: str) -> None:
    """Refuse a run that lacks what a detector needs. Raises EpisodeDataError naming another detector."""
    lacks = detector.lacks(FitData(read.split.train, read.data.columns, read.seed))
    if lacks:
        raise EpisodeDataError(
            f"The detector {name} needs {lacks}; {read.run.root} has none. Choose {detector.instead or 'another'}."
        )


def calibrate_tasks(
    detector: Detector, predictor: Predictor, read: Read, options: LogFitOptions, note: Callable[[str], None]
) -> Calibrated:
    """Rule, probability, band and thresholds by task; the detector is fitted again without some tasks for new ones."""
    split, meta = read.split, read.run.meta
    held = [trace(predictor, s) for s in split.validate]
    usual = [e for s, e in zip(split.validate, held, strict=True) if not s.failed]
    band = usual_band(usual) if options.band else None
    good = [s for s in split.calibrate if not s.failed]
    rule = rule_of(bool(meta.signals), meta.action_spec.rate_hz)
    evidence, known = [trace(predictor, s) for s in good], [s.task for s in (*split.train, *split.calibrate)]
    thresholds = task_thresholds(evidence, [s.task for s in good], known, rule, band, options.alpha)
    deployed = predictor, rule, band
    thresholds.provisional = provisional_threshold(
        detector, read.data, split, deployed, options.alpha, options.seed, note
    )
    if told := few_successes(thresholds):
        note(told)
    probability = map_of(split.train, split.validate, held, options.probability)
    return Calibrated(rule=rule, thresholds=thresholds, probability=probability, band=band)


def _note_data(data: DataSet, note: Callable[[str], None]) -> None:
    failures = int(data.facts.failed.sum())
    note(f"{len(data.sequences)} episodes, {failures} failures, {len(np.unique(data.facts.task))} tasks")
    stacked = np.concatenate([s.signals for s in data.sequences])
    for i, column in enumerate(data.columns):
        missing = int((~np.isfinite(stacked[:, i])).sum())
        spread = float(np.nanstd(stacked[:, i])) if missing < len(stacked) else 0.0
        if missing > 0:
            share = _share(missing, len(stacked))
            note(f"signal {column.name} is missing on {share} steps; there it counts as usual")
        elif spread == 0:
            note(f"signal {column.name} never changes and is left out")
    hidden = [s.hidden for s in data.sequences if s.hidden is not None]
    away = sum(int((~np.isfinite(h)).sum()) for h in hidden)
    if away:
        note(
            f"{_share(away, sum(h.size for h in hidden))} entries of the hidden states are not finite (beyond float16, or "
            "never written); there they count as usual"
        )
    for task in np.unique(data.facts.task):
        rows = data.facts.task == task
        if data.facts.failed[rows].all():
            note(f"task {task} has no success: its alarms use the pooled threshold and its clock the other tasks'")


def _share(count: int, total: int) -> str:
    """`12 % of the`, or the numbers where that would round to nothing."""
    return f"{count / total:.0%} of the" if count / total >= 0.01 else f"{count} of {total}"
