"""The whole proof as stages that meet through files: collect, fit, gate, test, forks.

    fit/         episodes to fit and calibrate on              seed s       (not with a given bundle)
    bundle/      the calibrated monitor                                     (not with a given bundle)
    gate.jsonl   forks that decide which rungs may act         seed s + 1   (what they showed: bundle/ladder.json)
    test/        episodes nobody has seen, doing nothing       seed s + 2
    arms.jsonl   every arm on those same episodes
    *_verdicts/  what was judged, decided and guarded in those forks

Collection and forks go on where they were interrupted.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from failsight.core.errors import StorageError
from failsight.core.textfiles import read_json_object
from failsight.episodes.meta import write_text_atomic
from failsight.episodes.run import Run
from failsight.episodes.verdicts import Judge
from failsight.interventions.gate import GateEntry
from failsight.interventions.ladder_file import save_ladder
from failsight.monitor.bundle import load_monitor
from failsight.recipes.interventions.choice import ArmChoice, choose_arms
from failsight.recipes.interventions.fork_records import read_records, record_json
from failsight.recipes.interventions.judges import Judges, judges_of_bundle, judges_of_fit
from failsight.recipes.interventions.options import ExperimentConfig
from failsight.workflows.collect import CollectOptions, collect_run
from failsight.workflows.fit import Fitted, fit_run
from failsight.workflows.fork_verdicts import keep_verdicts
from failsight.workflows.forks import ArmPlan, ForkRecord, gate_from, require_unseen, run_forks
from failsight.workflows.plans import make_plan
from failsight.workflows.progress import Reporter, succeeding
from failsight.workflows.wiring import make_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentResult:
    """Everything the report is made of."""

    config: ExperimentConfig
    folder: Path
    choice: ArmChoice
    fit_run: Run | None
    """None: the bundle was given."""
    test_run: Run
    judges: Judges
    gate: list[ForkRecord]
    entries: tuple[GateEntry, ...]
    arms: list[ForkRecord]


def run_experiment(config: ExperimentConfig, folder: Path, reporter: Reporter) -> ExperimentResult:
    """All stages; figures and pages are made from the result.

    Raises FailsightError before anything runs when policy, simulator, bundle and arms do not belong together.
    """
    choice = choose_arms(config)
    for name, reason in choice.left_out.items():
        reporter.note(f"left out: {name}, because {reason}")
    fit_run_, fitted = _fit(config, folder, reporter)
    bundle = config.bundle or folder / "bundle"
    reporter.stage("3/5  fork development episodes: which rungs help?")
    gate = _forks(folder, "gate", config, bundle, ArmPlan(arms=choice.rungs), reporter)
    entries = gate_from(gate, choice.rungs)
    for entry in entries:
        _note_entry(entry, reporter)
    _keep_ladder(bundle, entries, reporter)
    judges = judges_of_fit(fitted, bundle) if fitted is not None else judges_of_bundle(bundle, gate)
    reporter.stage("4/5  collect test episodes nobody has seen")
    test_run = _collect(folder / "test", config, config.seed + 2, config.test_trials, reporter)
    reporter.stage("5/5  every arm on the same test episodes")
    require_unseen(gate, (meta.key for meta in test_run.episodes))
    test_plan = ArmPlan(arms=choice.arms, gate=entries, placebo_steps=judges.trigger_steps)
    arms = _forks(folder, "arms", config, bundle, test_plan, reporter)
    return ExperimentResult(
        config=config,
        folder=folder,
        choice=choice,
        fit_run=fit_run_,
        test_run=test_run,
        judges=judges,
        gate=gate,
        entries=entries,
        arms=arms,
    )


def _fit(config: ExperimentConfig, folder: Path, reporter: Reporter) -> tuple[Run | None, Fitted | None]:
    """Collect and fit, unless the bundle is given: then only that it is this policy's. Raises BundleError."""
    if config.bundle is not None:
        reporter.stage("1/5  no episodes to learn from: the bundle is given")
        reporter.stage("2/5  the given bundle judges")
        load_monitor(config.bundle, make_policy(config.policy))
        return None, None
    reporter.stage("1/5  collect episodes to learn from")
    run = _collect(folder / "fit", config, config.seed, config.fit_trials, reporter)
    reporter.stage("2/5  fit and calibrate the failure predictor")
    return run, fit_run(run, folder / "bundle", config.fit, reporter.note, config.workers)


def _keep_ladder(bundle: Path, entries: tuple[GateEntry, ...], reporter: Reporter) -> None:
    """Beside the bundle, for whoever protects a robot with it; one that somebody gave may be theirs to write alone."""
    try:
        save_ladder(bundle, entries)
    except StorageError as error:
        reporter.note(f"the ladder is not left beside the bundle: {error}")


def _note_entry(entry: GateEntry, reporter: Reporter) -> None:
    state = "open" if entry.open else "shut"
    what = f"{entry.rung} at a predicted {entry.type}" if entry.type else entry.rung
    reporter.note(
        f"{what}: {entry.rescues} rescues, {entry.harms} harms in {entry.triggers} triggers "
        f"(lower bound of net benefit {entry.net_low:+.2f}) -> {state}"
    )


def _collect(root: Path, config: ExperimentConfig, seed: int, trials: int, reporter: Reporter) -> Run:
    keys = make_plan(config.sim, config.tasks, [seed], trials, config.mix)
    options = CollectOptions(
        policy=config.policy,
        sim=config.sim,
        workers=config.workers,
        video_share=config.video_share,
        note=config.name,
        resume=True,
    )
    return collect_run(root, keys, options, succeeding(reporter.count(len(keys))))


def _forks(
    folder: Path, name: str, config: ExperimentConfig, bundle: Path, arm_plan: ArmPlan, reporter: Reporter
) -> list[ForkRecord]:
    """Run the forks that `<name>.jsonl` lacks; records come back in plan order."""
    seed, trials = (config.seed + 1, config.gate_trials) if name == "gate" else (config.seed + 2, config.test_trials)
    keys = make_plan(config.sim, config.tasks, [seed], trials, config.mix)
    path, stamp = folder / f"{name}.jsonl", _stamp(bundle, arm_plan, config)
    done = {record.key: record for record in read_records(path, stamp)}
    todo = [key for key in keys if key not in done]
    tick = reporter.count(len(keys))
    for _ in done:
        tick("")
    lines = [json.dumps({"stamp": stamp}), *(json.dumps(record_json(record)) for record in done.values())]
    write_text_atomic(path, "\n".join(lines) + "\n")
    marks = read_json_object(bundle / "fingerprint.json")
    judge = Judge(bundle=marks["bundle"], policy=marks["policy"])
    with path.open("a") as file:
        for record in run_forks(todo, arm_plan, config.sim, config.policy, bundle, config.workers, config.fallback):
            keep_verdicts(folder / f"{name}_verdicts", keys.index(record.key), record, judge)
            done[record.key] = record = replace(record, rows={})
            file.write(json.dumps(record_json(record)) + "\n")
            file.flush()
            tick(f"{sum(r.trigger_step is not None for r in done.values())} triggers")
    return [done[key] for key in keys]


def _stamp(bundle: Path, arm_plan: ArmPlan, config: ExperimentConfig) -> str:
    """Records belong to one bundle, one plan and one configuration; anything else starts over."""
    fingerprint = read_json_object(bundle / "fingerprint.json")
    calibration = read_json_object(bundle / "calibration.json")
    return json.dumps([fingerprint, calibration, asdict(arm_plan), config.decides])
