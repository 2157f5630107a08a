"""Judging a bundle on a run it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from failsight.core.errors import BundleError, EpisodeDataError
from failsight.core.types import FAILURE_TYPES, Array, Risk
from failsight.episodes.run import Run
from failsight.evaluation import detection
from failsight.evaluation.detection import Scored
from failsight.evaluation.explain import Reference, explain
from failsight.evaluation.failure_types import LEAD, type_figure
from failsight.evaluation.judging import trace
from failsight.evaluation.leaks import Leak, find_leaks
from failsight.evaluation.scoring import replay
from failsight.labels.table import read_labels
from failsight.monitor.bundle import load_monitor
from failsight.predictors.detectors import DETECTORS
from failsight.predictors.ledger import LedgerPredictor
from failsight.recipes.log_fitting import (
    JUDGED,
    LogFitOptions,
    first_trigger,
    fold_metrics,
    judge_log,
    judged_by,
    read_data,
)


def evaluate_bundle(folder: Path, bundle: Path) -> list[tuple[str, str]]:
    """Rows of (figure, value with interval), by replaying the monitor itself.

    Raises EpisodeDataError when the run has no scored episode or belongs to another policy.
    """
    run, monitor = Run(folder), load_monitor(bundle)
    labels = read_labels(run)
    if not labels:
        raise EpisodeDataError(f"{folder} has no scored episode.")
    scored = []
    for episode in run.read(sorted(labels)):
        verdicts, label = replay(monitor, episode), labels[episode.meta.ticket]
        on = [t for t, v in enumerate(verdicts) if v.trigger]
        scored.append(
            Scored(
                ticket=episode.meta.ticket,
                task=episode.meta.task,
                condition=episode.meta.condition,
                failed=not label.success,
                kind=-1 if label.failure_type is None else FAILURE_TYPES.index(label.failure_type),
                onset=label.onset,
                p_fail=_scores([v.risk for v in verdicts]),
                alarm=np.array([v.margin for v in verdicts]),
                types=np.array([v.risk.type for v in verdicts]),
                time_to_failure=np.array([v.risk.time_to_failure for v in verdicts]),
                dimension=np.array([v.risk.dimension for v in verdicts]),
                dimension_labels=label.dimension,
                trigger=on[0] if on else None,
            )
        )
    horizon = run.episodes[0].horizon
    rows = [("episodes", str(len(scored))), ("failed", str(sum(s.failed for s in scored)))]
    for share in (25, 50):
        for name, value in detection.auc_table(scored, horizon * share // 100, "bundle").items():
            rows.append((f"{name} at {share} % of the horizon", str(value)))
    rows.append(("false alarms", str(detection.false_alarms(scored))))
    rows.append(("failures that trigger", str(detection.recall(scored))))
    rows.append(("lead before the end, steps", str(detection.lead_steps(scored))))
    return rows + _type_rows(scored, run.meta.action_spec.rate_hz)


def _type_rows(scored: Sequence[Scored], rate_hz: float) -> list[tuple[str, str]]:
    """Failure type when it matters; in hindsight it is another, easier question."""
    ahead = f"{LEAD} steps" + (f" ({LEAD / rate_hz:.2g} s)" if rate_hz else "")
    return [
        ("failure type at the onset, macro F1 of 5 classes", str(type_figure(scored, "bundle").macro_f1)),
        (f"... {ahead} before the onset", str(type_figure(scored, "bundle", LEAD).macro_f1)),
        (
            "... in hindsight, of 4 types, failures known, last 80 steps",
            str(detection.type_scores(scored, "bundle").macro_f1),
        ),
    ]


def _scores(risks: Sequence[Risk]) -> Array:
    """p_fail; the evidence on a task so new that it has no probability."""
    p_fail = np.array([r.p_fail for r in risks])
    return p_fail if np.isfinite(p_fail).all() else np.array([r.evidence for r in risks])


def compare_detectors(
    folder: Path, detectors: Sequence[str], note: Callable[[str], None]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of a five-fold comparison on one run, ours or imported.

    Raises UnknownNameError for a detector nobody registered, CalibrationError when there are too few failures.
    """
    data = read_data(Run(folder), sampling=True)
    chosen = (
        tuple(DETECTORS) if tuple(detectors) == ("all",) else tuple(detectors) or (LogFitOptions().detector, *JUDGED)
    )
    table = judge_log(data, chosen, note)
    name, pooled, within = fold_metrics(data.facts)
    note(f"scores up to {name}; AUC in points, pooled with the task prior added except for the controls")
    columns = (
        "detector",
        "AUC",
        "AUC within task",
        "ECE",
        "false alarms, alpha 0.10",
        "caught by half-length",
        "us/step",
    )
    rows = [
        (
            key,
            *(_cell(figures.get(metric)) for metric in (pooled, within)),
            *(_cell(figures.get(metric), 3) for metric in ("ece", "fpr_alpha10", "recall_half")),
            f"{figures['step_us']['value']:.0f}",
        )
        for key, figures in table.items()
    ]
    return columns, rows


def _cell(figure: Mapping[str, Any] | None, digits: int = 1) -> str:
    if figure is None or figure["value"] is None:
        return "no data"
    if figure["low"] is None:
        return f"{figure['value']:.{digits}f}"
    return f"{figure['value']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def leak_report(folder: Path) -> list[Leak]:
    """Every row of the leak report of a labelled run."""
    run = Run(folder)
    data = read_data(run)
    seeds = {meta.ticket: meta.seed for meta in run.episodes}
    return find_leaks(data.sequences, data.facts, [seeds[s.ticket] for s in data.sequences])


def explain_episode(folder: Path, bundle: Path, ticket: int) -> list[str]:
    """Lines on one episode's first alarm (its last step when there is none).

    Raises EpisodeDataError for an unknown episode, BundleError when the bundle holds another detector than the ledger.
    """
    run, monitor = Run(folder), load_monitor(bundle)
    if not isinstance(monitor.predictor, LedgerPredictor) or monitor.probability is None:
        raise BundleError(f"{bundle} holds no evidence ledger; only its terms can be shown. Fit one: --detector ledger")
    data = read_data(run)
    found = [s for s in data.sequences if s.ticket == ticket]
    if not found:
        raise EpisodeDataError(f"{folder} has no scored episode {ticket}; list them with: failsight episodes {folder}")
    evidence = judged_by(monitor.band, trace(monitor.predictor, found[0]))
    choice = monitor.thresholds.choose(found[0].task)
    at = first_trigger(evidence, monitor.rule, choice.threshold)
    step = len(evidence) - 1 if at is None else at
    others = [s for s in data.sequences if s.ticket != ticket]
    why = explain(
        monitor.predictor,
        monitor.probability,
        [c.name for c in data.columns],
        found[0],
        step,
        Reference(monitor.predictor, others),
    )
    lines = ["no alarm; at its last step:" if at is None else f"alarm at step {step}", why.sentence()]
    lines += [
        f"nearest: episode {n.ticket} ({n.task}) {'failed' if n.failed else 'succeeded'}, distance {n.distance:.2f}"
        for n in why.nearest
    ]
    return [*lines, choice.note] if choice.note else lines
