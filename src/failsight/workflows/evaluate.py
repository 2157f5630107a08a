"""Judging a bundle on a run it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.timing import steps_in
from failsight.episodes.run import Run
from failsight.evaluation import detection
from failsight.evaluation.detection import Scored
from failsight.evaluation.explain import Explained, Neighbour, Reference, explain
from failsight.evaluation.failure_types import LEAD_S, type_figure
from failsight.evaluation.judging import trace
from failsight.evaluation.leaks import Leak, find_leaks
from failsight.evaluation.log_judging import JUDGED, judge_log, judged_at
from failsight.evaluation.occlusion import alike, occlude
from failsight.evaluation.run_claims import TOP, clock_rows, constant_rows, precision_table, run_claim
from failsight.evaluation.scoring import Truth, judged_by_monitor, replay
from failsight.labels.table import read_labels
from failsight.monitor.bundle import load_monitor
from failsight.monitor.calibrate import first_trigger, judged_by
from failsight.monitor.monitor import RiskMonitor
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.detectors import DETECTORS
from failsight.workflows.bundle_metrics import read_metrics
from failsight.workflows.fit import LogFitOptions, left_out, note_left_out, read_data


def evaluate_bundle(folder: Path, bundle: Path) -> list[tuple[str, str]]:
    """Rows of (figure, value with interval), by replaying the monitor itself.

    Raises EpisodeDataError when the run has no scored episode or belongs to another policy.
    """
    run, monitor = Run(folder), load_monitor(bundle)
    labels = read_labels(run)
    if not labels:
        raise EpisodeDataError(f"{folder} has no scored episode.")
    scored = [
        judged_by_monitor(Truth.of_label(e.meta, labels[e.meta.ticket]), replay(monitor, e), monitor.rule)
        for e in run.read(sorted(labels))
    ]
    rows = bundle_rows(scored, monitor, run.episodes[0].horizon)
    if told := left_out(run):
        rows.append(("left out", told))
    kept = read_metrics(bundle)
    if kept is not None:
        rows.append(("when it was fitted", f"judged on {kept['judged_on']}: {_kept(kept['figures'])}"))
    return rows + _type_rows(scored, run.meta.action_spec.rate_hz)


def _kept(figures: Mapping[str, Any]) -> str:
    """The headline of a log, or the figure at half the horizon of an own run."""
    if "headline" in figures:
        return str(figures["headline"]["sentence"])
    return f"AUC at 50 % of the horizon {_cell(figures.get('50', {}).get('auc'), 3)}"


def bundle_rows(scored: Sequence[Scored], monitor: RiskMonitor, horizon: int) -> list[tuple[str, str]]:
    """Figures of scored episodes: at each moment beside clock and task prior, then the alarms where a threshold exists."""
    rows = [("episodes", str(len(scored))), ("failed", str(sum(s.failed for s in scored)))]
    for share in (25, 50):
        rows += _moment_rows(scored, monitor, horizon * share // 100, f"at {share} % of the horizon")
    without = sorted({s.task for s in scored if not _has_threshold(monitor, s.task)})
    watched = [s for s in scored if s.task not in without]
    for task in without:
        rows.append(
            (f"alarms on {task}", f"no threshold exists on this task (n={sum(s.task == task for s in scored)})")
        )
    for name, measure in (
        ("false alarms", detection.false_alarms),
        ("failures that trigger", detection.recall),
        ("lead before the end, steps", detection.lead_steps),
    ):
        rows.append((name, str(measure(watched)) if watched else "no threshold exists on any of these tasks"))
    return rows


def _type_rows(scored: Sequence[Scored], rate_hz: float) -> list[tuple[str, str]]:
    """Failure type when it matters; in hindsight it is another, easier question."""
    lead = steps_in(LEAD_S, rate_hz)
    ahead = f"{lead} steps" + (f" ({lead / rate_hz:.2g} s)" if rate_hz else "")
    return [
        ("failure type at the onset, macro F1 of 5 classes", str(type_figure(scored, "bundle").macro_f1)),
        (f"... {ahead} before the onset", str(type_figure(scored, "bundle", lead).macro_f1)),
        (
            "... in hindsight, of 4 types, failures known, last 80 steps",
            str(detection.type_scores(scored, "bundle").macro_f1),
        ),
    ]


def _has_threshold(monitor: RiskMonitor, task: str) -> bool:
    return bool(np.isfinite(monitor.thresholds.choose(task).threshold))


def _moment_rows(scored: Sequence[Scored], monitor: RiskMonitor, step: int, when: str) -> list[tuple[str, str]]:
    """AUCs, AUPRC and precision@20 among episodes still running, the controls' beside them, and what is shown."""
    controls: dict[str, Sequence[Scored]] = {"clock": clock_rows(scored)}
    histories = {} if monitor.probability is None else monitor.probability.histories
    if histories:
        controls["task_prior"] = constant_rows(
            scored, lambda s: histories[s.task].prior if s.task in histories else 0.0
        )
    rows = []
    for name, value in detection.auc_table(scored, step, "bundle").items():
        rows.append((f"{name} {when}", str(value)))
    for name, episodes in controls.items():
        rows.append((f"... of the {name.replace('_', ' ')}", f"{detection.auc_points(episodes, step)['auc']:.3f}"))
    for name, episodes in {"": scored, **controls}.items():
        row = precision_table(episodes, step)
        title = f"... of the {name.replace('_', ' ')}, AUPRC" if name else f"AUPRC {when}"
        rows.append((title, _precision(row["auprc"])))
        if not name:
            rows.append((f"precision@{TOP} {when}", _precision(row[f"precision_at_{TOP}"])))
    pooled, within = (run_claim(scored, controls, step, group, "bundle") for group in ("", "task"))
    rows.append((f"beats clock and task {when}", pooled["sentence"]))
    rows.append((f"beats them within tasks {when}", within["sentence"]))
    return rows


def _precision(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return f"no data (n={row['n']})"
    return f"{row['value']:.3f} (prevalence {row['prevalence']:.3f}, n={row['n']})"


def compare_detectors(
    folder: Path, detectors: Sequence[str], note: Callable[[str], None]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of a five-fold comparison on one run, ours or imported.

    Raises UnknownNameError for a detector nobody registered, CalibrationError when there are too few failures.
    """
    run = Run(folder)
    note_left_out(run, note)
    data = read_data(run, sampling=True)
    chosen = (
        tuple(DETECTORS) if tuple(detectors) == ("all",) else tuple(detectors) or (LogFitOptions().detector, *JUDGED)
    )
    table = judge_log(data, chosen, note)
    words, moment = judged_at(data.facts)
    note(
        f"scores at {words}, among episodes still running; AUC and AUPRC in points, pooled with the task prior added "
        "except for the controls"
    )
    columns = (
        "detector",
        "AUC",
        "AUC within task",
        "AUPRC (prevalence)",
        f"precision@{TOP}",
        "shown",
        "ECE",
        "false alarms, alpha 0.10",
        "caught by half-length",
        "us/step",
    )
    return columns, [_row(key, figures, moment) for key, figures in table.items()]


def _row(name: str, figures: Mapping[str, Any], moment: str) -> tuple[str, ...]:
    running = figures["running"][moment]
    pooled = running.get("seen", {})
    area = pooled.get("auprc")
    claims = figures.get("claims", {})
    return (
        name,
        *(_cell(running.get(view)) for view in ("seen", "seen_within")),
        "no data" if area is None or area["value"] is None else f"{area['value']:.1f} ({area['prevalence']:.1f})",
        _cell(pooled.get(f"precision_at_{TOP}"), 2),
        "" if not claims else "shown" if claims.get("seen", {}).get("shown") else "not shown",
        *(_cell(figures.get(metric), 3) for metric in ("ece", "fpr_alpha10", "recall_half")),
        f"{figures['step_us']['value']:.0f}",
    )


def _cell(figure: Mapping[str, Any] | None, digits: int = 1) -> str:
    if figure is None or figure["value"] is None:
        return "no data"
    if figure.get("left_out"):
        return f"n = {figure['failures']} failed, {figure['successes']} not: too few"
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
    """Lines on one episode's first alarm (its last step when there is none): the terms of the evidence where it is a sum
    of terms, else what every part of the input weighs.

    Raises EpisodeDataError for an unknown episode, or a run without a success to compare with.
    """
    run, monitor = Run(folder), load_monitor(bundle)
    data = read_data(run)
    found = [s for s in data.sequences if s.ticket == ticket]
    if not found:
        raise EpisodeDataError(f"{folder} has no scored episode {ticket}; list them with: failsight episodes {folder}")
    evidence = judged_by(monitor.band, trace(monitor.predictor, found[0]))
    choice = monitor.thresholds.choose(found[0].task)
    at = first_trigger(evidence, monitor.rule, choice.threshold)
    step = len(evidence) - 1 if at is None else at
    others = [s for s in data.sequences if s.ticket != ticket]
    head = "no alarm; at its last step:" if at is None else f"alarm at step {step}"
    lines = [head, *_reasons(monitor, [c.name for c in data.columns], found[0], step, others)]
    return [*lines, choice.note] if choice.note else lines


def _reasons(
    monitor: RiskMonitor, names: list[str], sequence: LabelledSequence, step: int, others: Sequence[LabelledSequence]
) -> list[str]:
    if isinstance(monitor.predictor, Explained) and monitor.probability is not None:
        reference = Reference(monitor.predictor, others)
        why = explain(monitor.predictor, monitor.probability, names, sequence, step, reference)
        return [why.sentence(), *map(_neighbour, why.nearest)]
    if all(other.failed for other in others):
        raise EpisodeDataError("The run has no other success that says what is usual; explain a run that has one.")
    seen = occlude(monitor.predictor, names, sequence, step, others)
    return [seen.sentence(), *map(_neighbour, alike(sequence, step, others))]


def _neighbour(found: Neighbour) -> str:
    ended = "failed" if found.failed else "succeeded"
    return f"nearest: episode {found.ticket} ({found.task}) {ended}, distance {found.distance:.2f}"
