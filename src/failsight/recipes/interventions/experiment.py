"""The whole proof as stages that meet through files: collect, fit, gate, test, forks.

    fit/         episodes to fit and calibrate on              seed s
    bundle/      the calibrated monitor
    gate.jsonl   forks that decide which rungs may act         seed s + 1
    test/        episodes nobody has seen, doing nothing       seed s + 2
    arms.jsonl   every arm on those same episodes
    *_verdicts/  what was judged, decided and guarded in those forks

Collection and forks go on where they were interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError
from failsight.core.textfiles import read_json_object
from failsight.core.types import EpisodeKey, Outcome, Perturbation
from failsight.episodes.meta import EpisodeMeta, write_text_atomic
from failsight.episodes.run import Run
from failsight.episodes.verdicts import Judge
from failsight.evaluation.paired import PairedEpisode
from failsight.interventions.arms import ARMS, NONE
from failsight.interventions.gate import GateEntry
from failsight.workflows.collect import CollectOptions, collect_run
from failsight.workflows.fit_run import FitOptions, Fitted, fit_run
from failsight.workflows.fork_verdicts import keep_verdicts
from failsight.workflows.forks import ArmPlan, ForkRecord, gate_from, run_forks
from failsight.workflows.plans import make_plan
from failsight.workflows.progress import Reporter

GATE_ARMS = tuple(arm.key for arm in ARMS.values() if arm.rung)
TEST_ARMS = tuple(name for name in ARMS if name != NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentConfig:
    """A complete experiment."""

    name: str
    policy: str = "tabletop-strong"
    sim: str = "tabletop"
    mix: str = "default"
    seed: int = 100
    fit_trials: int = 20
    """Episodes per task to fit and calibrate on."""
    gate_trials: int = 5
    test_trials: int = 12
    workers: int = 2
    video_share: float = 0.03
    fit: FitOptions = field(default_factory=FitOptions)


@dataclass(slots=True, kw_only=True)
class ExperimentResult:
    """Everything the report is made of."""

    config: ExperimentConfig
    fit_run: Run
    test_run: Run
    fitted: Fitted
    gate: list[ForkRecord]
    entries: tuple[GateEntry, ...]
    arms: list[ForkRecord]
    bundle: Path


def run_experiment(config: ExperimentConfig, folder: Path, reporter: Reporter) -> ExperimentResult:
    """All stages; figures and pages are made from the result."""
    reporter.stage("1/5  collect episodes to learn from")
    fit_run_ = _collect(folder / "fit", config, config.seed, config.fit_trials, reporter)
    reporter.stage("2/5  fit and calibrate the failure predictor")
    fitted = fit_run(fit_run_, folder / "bundle", config.fit, reporter.note, config.workers)
    reporter.stage("3/5  fork development episodes: which rungs help?")
    gate_plan = ArmPlan(arms=GATE_ARMS)
    gate = _forks(folder, "gate", config, config.seed + 1, config.gate_trials, gate_plan, reporter)
    entries = gate_from(gate, GATE_ARMS)
    for entry in entries:
        state = "open" if entry.open else "shut"
        reporter.note(
            f"{entry.rung}: {entry.rescues} rescues, {entry.harms} harms in {entry.triggers} triggers "
            f"(lower bound of net benefit {entry.net_low:+.2f}) -> {state}"
        )
    reporter.stage("4/5  collect test episodes nobody has seen")
    test_run = _collect(folder / "test", config, config.seed + 2, config.test_trials, reporter)
    reporter.stage("5/5  every arm on the same test episodes")
    test_plan = ArmPlan(arms=TEST_ARMS, gate=entries, placebo_steps=tuple(fitted.trigger_steps))
    arms = _forks(folder, "arms", config, config.seed + 2, config.test_trials, test_plan, reporter)
    return ExperimentResult(
        config=config,
        fit_run=fit_run_,
        test_run=test_run,
        fitted=fitted,
        gate=gate,
        entries=entries,
        arms=arms,
        bundle=folder / "bundle",
    )


def _collect(root: Path, config: ExperimentConfig, seed: int, trials: int, reporter: Reporter) -> Run:
    keys = make_plan(config.sim, (), [seed], trials, config.mix)
    tick = reporter.count(len(keys))
    good = done = 0

    def progress(meta: EpisodeMeta, old: bool) -> None:
        nonlocal good, done
        done += 1
        good += meta.outcome == Outcome.SUCCESS
        tick(f"success {good / done:.0%}")

    options = CollectOptions(
        policy=config.policy,
        sim=config.sim,
        workers=config.workers,
        video_share=config.video_share,
        note=config.name,
        resume=True,
    )
    return collect_run(root, keys, options, progress)


def _forks(
    folder: Path, name: str, config: ExperimentConfig, seed: int, trials: int, arm_plan: ArmPlan, reporter: Reporter
) -> list[ForkRecord]:
    """Run the forks that `<name>.jsonl` lacks; records come back in plan order."""
    keys = make_plan(config.sim, (), [seed], trials, config.mix)
    path, stamp = folder / f"{name}.jsonl", _stamp(folder / "bundle", arm_plan)
    done = {record.key: record for record in _read_records(path, stamp)}
    todo = [key for key in keys if key not in done]
    tick = reporter.count(len(keys))
    for _ in done:
        tick("")
    lines = [json.dumps({"stamp": stamp}), *(json.dumps(_record_json(record)) for record in done.values())]
    write_text_atomic(path, "\n".join(lines) + "\n")
    marks = read_json_object(folder / "bundle/fingerprint.json")
    judge = Judge(bundle=marks["bundle"], policy=marks["policy"])
    with path.open("a") as file:
        for record in run_forks(todo, arm_plan, config.sim, config.policy, folder / "bundle", config.workers):
            keep_verdicts(folder / f"{name}_verdicts", keys.index(record.key), record, judge)
            done[record.key] = record = replace(record, rows={})
            file.write(json.dumps(_record_json(record)) + "\n")
            file.flush()
            tick(f"{sum(r.trigger_step is not None for r in done.values())} triggers")
    return [done[key] for key in keys]


def _stamp(bundle: Path, arm_plan: ArmPlan) -> str:
    """Records belong to one bundle and one plan; anything else starts over."""
    fingerprint = read_json_object(bundle / "fingerprint.json")
    calibration = read_json_object(bundle / "calibration.json")
    return json.dumps([fingerprint, calibration, asdict(arm_plan)])


def _read_records(path: Path, stamp: str) -> Iterator[ForkRecord]:
    if not path.is_file():
        return
    lines = path.read_text().splitlines()
    if not lines or json.loads(lines[0]).get("stamp") != stamp:
        path.unlink()
        return
    for number, line in enumerate(lines[1:], 2):
        try:
            yield _record_from(json.loads(line))
        except (json.JSONDecodeError, KeyError) as error:
            if number == len(lines):
                return
            raise EpisodeDataError(f"{path} is damaged at line {number}; delete it and run again.") from error


def _record_json(record: ForkRecord) -> dict[str, Any]:
    data = asdict(replace(record, rows={}))
    del data["rows"]
    data["key"]["perturbations"] = record.key.condition
    return data


def _record_from(data: dict[str, Any]) -> ForkRecord:
    key = EpisodeKey(**{**data["key"], "perturbations": Perturbation.parse(data["key"]["perturbations"])})
    return ForkRecord(
        key=key,
        none=_paired_from(data["none"]),
        trigger_step=data["trigger_step"],
        arms={name: _paired_from(arm) for name, arm in data["arms"].items()},
        again=None if data["again"] is None else Outcome(data["again"]),
        error=data.get("error", ""),
    )


def _paired_from(data: dict[str, Any]) -> PairedEpisode:
    return PairedEpisode(**{**data, "outcome": Outcome(data["outcome"])})
