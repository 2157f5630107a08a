"""What a fit of a detector is worth: judged by folds beside its controls, explained, and kept in the run folder."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

from failsight.core.types import Array
from failsight.episodes.meta import write_text_atomic
from failsight.episodes.run import Run
from failsight.evaluation.explain import Explained, Reference, explain
from failsight.evaluation.judging import trace
from failsight.evaluation.leaks import find_leaks
from failsight.evaluation.log_judging import HEADLINES, JUDGED, describe, headlines, judge_log, judged_at
from failsight.evaluation.patterns import importance, learn_rules
from failsight.evaluation.provenance import commit, versions
from failsight.monitor.calibrate import first_trigger
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.detectors import DETECTORS, titles
from failsight.predictors.find_detector import find_detector
from failsight.workflows.bundle_metrics import save_metrics
from failsight.workflows.fit import LogFitOptions, LogFitted


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
        judged = fitted.calibrated.judged(evidence)
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
    probability = fitted.calibrated.probability
    assert probability is not None
    p = [probability.p_fail(float(e), s.task, t) for t, e in enumerate(evidence)]
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
        found = explain(fitted.predictor, probability, names, s, step, reference)
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
