"""From a run of signals (a foreign log, or our own) to a calibrated bundle of any detector, judged on the way."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.errors import CalibrationError, EpisodeDataError
from failsight.core.types import Array
from failsight.episodes.meta import write_text_atomic
from failsight.episodes.run import Run
from failsight.evaluation.explain import Explained, Reference, explain
from failsight.evaluation.judging import (
    DataSet,
    facts_of,
    map_of,
    trace,
)
from failsight.evaluation.leaks import find_leaks
from failsight.evaluation.log_judging import HEADLINES, JUDGED, describe, headlines, judge_log, judged_at
from failsight.evaluation.patterns import importance, learn_rules
from failsight.evaluation.provenance import commit, versions
from failsight.labels.table import read_labels
from failsight.monitor.band import Band, fit_band
from failsight.monitor.bundle import save_bundle
from failsight.monitor.probability import ProbabilityMap
from failsight.monitor.senses import usual_of
from failsight.monitor.thresholds import Thresholds, fit_thresholds
from failsight.monitor.trigger import Trigger, TriggerRule, episode_statistic
from failsight.predictors.dataset import (
    FitSplit,
    LabelledSequence,
    build_sequences,
    signal_columns,
    split_sequences,
)
from failsight.predictors.detector import Detector, FitData
from failsight.predictors.detectors import DETECTORS, titles
from failsight.predictors.find_detector import find_detector
from failsight.workflows.bundle_metrics import drop_metrics, save_metrics
from failsight.workflows.log_thresholds import provisional_threshold

LOG_RULE = TriggerRule(needed=1, window=1, release_steps=1)
"""A step of a log is one inference: there is no time to wait for more of them. Control ticks keep the default rule."""
_CALIBRATE = 0.30
"""Share of the episodes that calibrate; see `split_sequences`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFitOptions:
    """Dials of a fit."""

    detector: str = "blend"
    alpha: float = 0.10
    seed: int = 0
    probability: Literal["platt", "isotonic"] = "platt"
    band: bool = False
    """Judge deviations from a band over time instead of the evidence itself."""


@dataclass(slots=True, kw_only=True)
class LogFitted:
    """What a fit leaves."""

    bundle: Path
    predictor: Predictor
    probability: ProbabilityMap
    thresholds: Thresholds
    rule: TriggerRule
    band: Band | None
    split: FitSplit
    data: DataSet


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
    data = read_data(run)
    require_enough(data.sequences, options.alpha)
    split = split_sequences(data.sequences, options.seed)
    lacks = detector.lacks(FitData(split.train, data.columns, options.seed))
    if lacks:
        choose = detector.instead or "another"
        raise EpisodeDataError(f"The detector {options.detector} needs {lacks}; {run.root} has none. Choose {choose}.")
    _note_data(data, note)
    predictor = detector.fit(FitData(split.train, data.columns, options.seed, split.validate))
    held = [trace(predictor, s) for s in split.validate]
    probability = map_of(split.train, split.validate, held, options.probability)
    usual = [e for s, e in zip(split.validate, held, strict=True) if not s.failed]
    band = fit_band(usual) if options.band and usual else None
    good = [s for s in split.calibrate if not s.failed]
    rule = LOG_RULE if run.meta.signals else TriggerRule().at(run.meta.action_spec.rate_hz)
    statistics = [episode_statistic(judged_by(band, trace(predictor, s)), rule) for s in good]
    thresholds = fit_thresholds(
        statistics, [s.task for s in good], options.alpha, [s.task for s in (*split.train, *split.calibrate)]
    )
    thresholds.provisional = provisional_threshold(
        detector, data, split, (predictor, rule, band), options.alpha, options.seed, note
    )
    pooled = sorted(task for task in thresholds.known or {} if thresholds.choose(task).basis == "pooled")
    if pooled:
        note(
            f"pooled threshold on {len(pooled)} of {len(thresholds.known or {})} tasks: fewer than 20 calibration "
            "successes each; the promised rate holds on average over them, not on each"
        )
    save_bundle(
        bundle,
        predictor,
        rule,
        thresholds,
        (run.meta.action_spec, run.meta.observation_spec),
        run.meta.policy,
        {"run": run.root.name, "episodes": len(data.sequences), "seed": options.seed, "versions": run.meta.versions},
        run.meta.signals,
        probability,
        band,
        usual_of([s.signals for s in split.train]),
    )
    drop_metrics(bundle)
    return LogFitted(
        bundle=bundle,
        predictor=predictor,
        probability=probability,
        thresholds=thresholds,
        rule=rule,
        band=band,
        split=split,
        data=data,
    )


def first_trigger(judged: Array, rule: TriggerRule, threshold: float) -> int | None:
    """First step at which the trigger is on."""
    trigger = Trigger(rule, threshold)
    return next((t for t, value in enumerate(judged) if trigger.update(float(value))), None)


def judged_by(band: Band | None, evidence: Array) -> Array:
    """What the threshold is compared with, (T,)."""
    return evidence if band is None else band.apply(evidence)


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


def summarise_log(
    run: Run, fitted: LogFitted, options: LogFitOptions, began: float, note: Callable[[str], None]
) -> None:
    """Judge the fitted kind of detector by folds, explain it, and write `summary.json` into the run folder."""
    data = fitted.data
    note("judging it on held-out folds, beside clock, task prior and permuted labels")
    rows = judge_log(data, [n for n in JUDGED if n != options.detector] + [options.detector], note)
    table = {options.detector: rows.pop(options.detector), **rows}
    moment = judged_at(data.facts).moment
    seeds = {meta.ticket: meta.seed for meta in run.episodes}
    leaks = find_leaks(data.sequences, data.facts, [seeds[s.ticket] for s in data.sequences])
    summary = {
        "kind": "log",
        "command": f"failsight fit {run.root.name}",
        "commit": commit(),
        "versions": versions(),
        "wall_s": time.monotonic() - began,
        "default": options.detector,
        "detectors": {name: {data.name: figures} for name, figures in table.items()},
        **headlines(table[options.detector]["claims"], moment),
        "datasets": {data.name: {**describe(data), "policy": run.meta.policy, "suite": run.meta.sim}},
        "titles": titles({**DETECTORS, **{name: find_detector(name) for name in table}}),
        "leaks": {data.name: [leak.as_dict() for leak in leaks]},
        "calibration": _calibration(fitted),
        "alarms": _alarms(fitted),
        "rules": _rules(fitted),
        "importance": _importance(fitted),
    }
    write_text_atomic(run.root / "summary.json", json.dumps(summary, indent=1, allow_nan=False))
    heads = {key: summary[key] for key in HEADLINES if key in summary}
    save_metrics(fitted.bundle, f"five folds of {run.root.name}", {**table[options.detector], **heads})


def _calibration(fitted: LogFitted) -> dict[str, Any]:
    thresholds = fitted.thresholds
    return {
        "alpha": thresholds.pooled.alpha,
        "pooled": thresholds.pooled.as_dict(),
        "provisional": None if thresholds.provisional is None else thresholds.provisional.as_dict(),
        "tasks": {task: thresholds.choose(task)._asdict() for task in sorted(thresholds.known or {})},
    }


def _alarms(fitted: LogFitted, most: int = 3) -> list[dict[str, Any]]:
    """Caught failures, missed failures and false alarms among the calibration episodes, with traces and reasons."""
    reference = None
    if isinstance(fitted.predictor, Explained):
        reference = Reference(fitted.predictor, fitted.split.train)
    wanted = {"caught": most, "missed": 1, "false alarm": 1}
    rows, used = [], set[tuple[str, str]]()
    for s in fitted.split.calibrate:
        evidence = trace(fitted.predictor, s)
        judged = judged_by(fitted.band, evidence)
        limit = fitted.thresholds.choose(s.task).threshold
        at = first_trigger(judged, fitted.rule, limit)
        kind = ("missed" if at is None else "caught") if s.failed else ("" if at is None else "false alarm")
        if wanted.get(kind, 0) <= 0 or (kind, s.task) in used:
            continue
        used.add((kind, s.task))
        wanted[kind] -= 1
        rows.append(_alarm(fitted, reference, s, (evidence, judged, limit), kind, at))
    return rows


def _alarm(
    fitted: LogFitted,
    reference: Reference | None,
    s: LabelledSequence,
    seen: tuple[Array, Array, float],
    kind: str,
    at: int | None,
) -> dict[str, Any]:
    evidence, judged, limit = seen
    p = [fitted.probability.p_fail(float(e), s.task, t) for t, e in enumerate(evidence)]
    row: dict[str, Any] = {
        "kind": kind,
        "ticket": s.ticket,
        "task": s.task,
        "evidence": [float(e) for e in judged],
        "p_fail": p,
        "threshold": limit,
        "at": at,
        "why": None,
    }
    if isinstance(fitted.predictor, Explained):
        step = len(evidence) - 1 if at is None else at
        names = [c.name for c in fitted.data.columns]
        found = explain(fitted.predictor, fitted.probability, names, s, step, reference)
        row["why"] = {**found.as_dict(), "sentence": found.sentence()}
    return row


def _rules(fitted: LogFitted) -> list[dict[str, Any]]:
    names = [c.name for c in fitted.data.columns]
    rules = learn_rules(fitted.split.train, fitted.split.calibrate, names)
    return [
        {
            "rule": rule.sentence(),
            "precision": rule.precision if math.isfinite(rule.precision) else None,
            "recall": rule.recall,
            "base": rule.base,
        }
        for rule in rules
    ]


def _importance(fitted: LogFitted) -> dict[str, Any]:
    names = [c.name for c in fitted.data.columns]
    cut = max(2, fitted.data.facts.horizon // 4)
    held = (*fitted.split.validate, *fitted.split.calibrate)
    found = importance(fitted.predictor, held, names, cut, "log")
    ordered = sorted(found.items(), key=lambda item: -item[1].value)
    return {name: estimate.as_dict() for name, estimate in ordered}
