"""From an experiment's results to `summary.json`: every figure of the report with interval and n."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from failsight.core.types import FAILURE_TYPES, Outcome, Task
from failsight.episodes.run import Run
from failsight.evaluation import detection
from failsight.evaluation.claims import CONTROL_ROWS
from failsight.evaluation.detection import Scored
from failsight.evaluation.failure_types import type_rows
from failsight.evaluation.intervals import Estimate, mean_of_fits, proportion
from failsight.evaluation.paired import compare, success_gap
from failsight.evaluation.provenance import commit, versions
from failsight.evaluation.run_claims import Group, constant_rows, precision_table, run_claim
from failsight.evaluation.scoring import score_all
from failsight.interventions.arms import NONE, Arm, arm_words, find_arms
from failsight.labels.table import read_labels
from failsight.monitor.bundle import load_monitor
from failsight.predictors.dataset import LabelledSequence, build_sequences
from failsight.recipes.interventions.experiment import ExperimentResult
from failsight.workflows.fit import DEFAULT
from failsight.workflows.fork_verdicts import guard_counts
from failsight.workflows.forks import ForkRecord, aa_flips, paired

SHARES = {"25": 0.25, "50": 0.50}
"""Elapsed time at which detection is judged, as share of the declared horizon."""


def score_test_run(result: ExperimentResult) -> tuple[list[LabelledSequence], dict[str, list[Scored]]]:
    """The test episodes, and what every predictor says of them."""
    sequences = build_sequences(result.test_run, read_labels(result.test_run))
    return sequences, result.judges.score(result.test_run, sequences)


def summarise_experiment(
    result: ExperimentResult,
    sequences: Sequence[LabelledSequence],
    scored: dict[str, list[Scored]],
    command: str,
    wall_s: float,
) -> dict[str, Any]:
    """The whole summary; keys are documented in docs/summary.md. Args: sequences, scored: from `score_test_run`."""
    config, rate = result.config, result.test_run.meta.action_spec.rate_hz
    labels = read_labels(result.test_run)
    default = scored[DEFAULT]
    names = (NONE, *result.choice.arms)
    arms, headline = arm_rows(result.arms, names, rate), headline_of(names)
    flips, forks = aa_flips(result.arms)
    calibration = result.judges.calibration
    return {
        "command": command,
        "commit": commit(),
        "versions": versions(),
        "seeds": {"fit": config.seed, "gate": config.seed + 1, "test": config.seed + 2},
        "wall_s": wall_s,
        "config": config.as_dict(),
        "episodes": {
            "fit": len(result.fit_run.episodes) if result.fit_run else 0,
            "gate": len(result.gate),
            "test": len(labels),
        },
        "unscored": {"fit": _unscored(result.fit_run) if result.fit_run else 0, "test": _unscored(result.test_run)},
        "policy": {
            "name": config.policy,
            "fingerprint": result.test_run.meta.policy,
            "success_rate": proportion(sum(x.success for x in labels.values()), len(labels)).as_dict(),
            "per_task": _rates(sequences, "task"),
            "per_condition": _rates(sequences, "condition"),
        },
        "failure_types": _types([s.kind for s in sequences]) if typed(sequences) else {},
        "detection": _detection(result, sequences, scored),
        "types": {n: type_rows(scored[n], n, rate) for n in (DEFAULT, "salus_mlp") if n in scored},
        "false_alarm_rate": {
            **detection.false_alarms(default).as_dict(),
            "alpha": calibration.alpha,
            "alpha_upper": calibration.alpha_upper,
            "threshold": calibration.as_dict()["threshold"],
            "calibration_successes": calibration.successes,
        },
        "recall": detection.recall(default).as_dict(),
        "before_onset": detection.before_onset(default).as_dict(),
        "lead_steps": detection.lead_steps(default).as_dict(),
        "arms": arms,
        "arm_words": arm_words(names),
        "left_out": dict(result.choice.left_out),
        "gate": [entry.as_dict() for entry in result.entries if not entry.type],
        "gate_types": [entry.as_dict() for entry in result.entries if entry.type],
        "headline": headline,
        "failure_reduction": arms[headline]["failure_reduction"],
        "human_minutes_per_hour": arms[headline]["human_minutes_per_hour"],
        "aa_flips": {"flips": flips, "forks": forks},
        "guard": guard_counts(result.folder / "arms_verdicts"),
        "monitor": monitor_latency(result.test_run, result.judges.bundle),
    }


def arm_rows(records: Sequence[ForkRecord], names: Sequence[str], rate_hz: float) -> dict[str, dict[str, Any]]:
    """Figures of every arm; against doing nothing, and in pairs against its placebo where one was run."""
    arms = find_arms(names)
    rows = {arm.key: compare(arm.key, *paired(records, arm.key), rate_hz).as_dict() for arm in arms}
    for arm in arms:
        placebo = _placebo_of(arm, arms)
        if placebo:
            without, with_arm = paired(records, arm.key, against=placebo)
            gap = success_gap(f"{arm.key} over {placebo}", with_arm, without).as_dict()
            rows[arm.key] |= {"over_placebo": gap, "placebo": placebo}
    return rows


def _placebo_of(arm: Arm, arms: Sequence[Arm]) -> str:
    """What acts at random moments with the same means: a person's placebo is a person. Empty: none was run."""
    if arm.key == NONE or arm.random:
        return ""
    found = [other for other in arms if other.random]
    alike = [other.key for other in found if other.autonomous == arm.autonomous]
    return (alike or [other.key for other in found] or [""])[0]


def headline_of(names: Sequence[str]) -> str:
    """The arm the headline is about: the last ladder, else the last arm that acts at the alarm, else doing nothing."""
    acting = [arm for arm in find_arms(names) if not arm.random]
    return ([arm for arm in acting if arm.gated] or acting)[-1].key


def _detection(
    result: ExperimentResult, sequences: Sequence[LabelledSequence], scored: dict[str, list[Scored]]
) -> dict[str, Any]:
    horizon = result.test_run.episodes[0].horizon
    table: dict[str, Any] = {"horizon": horizon}
    permuted = [score_all(sequences, p, result.config.fit.rule, float("inf")) for p in result.judges.permuted]
    for label, share in SHARES.items():
        step = int(share * horizon)
        judged = {**scored, **_condition_prior(result, scored[DEFAULT])}
        rows = {name: detection.auc_table(episodes, step, name) for name, episodes in judged.items()}
        if permuted:
            rows["permuted"] = _permuted_row(permuted, step)
        for metric in rows[DEFAULT]:
            table[f"{metric}_{label}"] = {
                **rows[DEFAULT][metric].as_dict(),
                **{name: row[metric].as_dict() for name, row in rows.items() if name != DEFAULT},
            }
        table[f"precision_{label}"] = {name: precision_table(episodes, step) for name, episodes in judged.items()}
        table[f"claims_{label}"] = _claims(judged, step)
        table[f"reliability_{label}"] = detection.reliability(scored[DEFAULT], step)
    table["alarms"] = {
        name: {
            "false_alarm_rate": detection.false_alarms(episodes).as_dict(),
            "recall": detection.recall(episodes).as_dict(),
            "lead_steps": detection.lead_steps(episodes).as_dict(),
        }
        for name, episodes in scored.items()
    }
    table["c_index"] = {name: detection.concordance(scored[name], 20, name).as_dict() for name in (DEFAULT,)}
    table["dimension_auc"] = {
        name: estimate.as_dict()
        for name, estimate in detection.dimension_auc(scored[DEFAULT], result.test_run.meta.action_spec.names).items()
    }
    return table


def _condition_prior(result: ExperimentResult, episodes: Sequence[Scored]) -> dict[str, list[Scored]]:
    """The control that knows only the perturbation: its failure rate among the episodes fitted on; empty without any."""
    rates = result.judges.rates
    return (
        {"condition_prior": constant_rows(episodes, lambda e: rates.of(e.condition))} if len(rates.groups) > 1 else {}
    )


def _claims(judged: dict[str, list[Scored]], step: int) -> dict[str, Any]:
    """What is shown at a step, pooled, within tasks and within perturbations: paired against every control row."""
    controls = {name: judged[name] for name in CONTROL_ROWS if name in judged}
    groups: dict[str, Group] = {"pooled": "", "within_task": "task"}
    if "condition_prior" in controls:
        groups["within_perturbation"] = "condition"
    return {n: run_claim(judged[DEFAULT], controls, step, group, "experiment") for n, group in groups.items()}


def _permuted_row(permuted: Sequence[list[Scored]], step: int) -> dict[str, Estimate]:
    """Mean over permuted fits; the spread between fits is what its interval shows."""
    metrics: dict[str, list[float]] = {}
    for episodes in permuted:
        for metric, value in detection.auc_points(episodes, step).items():
            metrics.setdefault(metric, []).append(value)
    return {metric: mean_of_fits(values) for metric, values in metrics.items()}


def typed(sequences: Sequence[LabelledSequence]) -> bool:
    """Whether failures have a type here; true where there is no failure."""
    return any(s.kind >= 0 for s in sequences) or not any(s.failed for s in sequences)


def _types(kinds: Sequence[int]) -> dict[str, Any]:
    counts = Counter(FAILURE_TYPES[k] for k in kinds if k >= 0)
    return {
        name: {"count": counts[name], "share": proportion(counts[name], len(kinds)).as_dict()} for name in FAILURE_TYPES
    }


def _rates(sequences: Sequence[LabelledSequence], field: str) -> dict[str, Any]:
    groups: dict[str, list[LabelledSequence]] = {}
    kinds = {kind: i for i, kind in enumerate(FAILURE_TYPES)} if typed(sequences) else {}
    for sequence in sequences:
        groups.setdefault(getattr(sequence, field), []).append(sequence)
    return {
        name: {
            "success": proportion(sum(not s.failed for s in rows), len(rows)).as_dict(),
            **{kind: sum(s.kind == i for s in rows) for kind, i in kinds.items()},
            **({} if kinds else {"failure": sum(s.failed for s in rows)}),
        }
        for name, rows in sorted(groups.items())
    }


def _unscored(run: Run) -> int:
    return sum(meta.outcome not in (Outcome.SUCCESS, Outcome.FAILURE) for meta in run.episodes)


def monitor_latency(run: Run, bundle: Path, episodes: int = 12) -> dict[str, Any]:
    """Wall time of one monitor step over recorded episodes, µs, after a warm-up episode."""
    monitor = load_monitor(bundle)
    times: list[float] = []
    for count, episode in enumerate(run.read([meta.ticket for meta in run.episodes[: episodes + 1]])):
        meta = episode.meta
        monitor.reset(Task(id=meta.task, suite=run.meta.sim, instruction=meta.instruction, horizon=meta.horizon))
        for step in episode.steps():
            began = time.perf_counter()
            monitor.step(step)
            if count:
                times.append((time.perf_counter() - began) * 1e6)
    p50, p99 = np.percentile(times, [50, 99]) if times else (float("nan"),) * 2
    hidden = run.meta.shapes.get("policy.hidden", (0,))
    return {"p50_us": float(p50), "p99_us": float(p99), "steps": len(times), "hidden": int(hidden[0])}
