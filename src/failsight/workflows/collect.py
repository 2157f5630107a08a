"""Collect and label: a named policy in a named simulator -> a sealed, labelled run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from failsight.core.errors import FailsightError, told
from failsight.core.types import EpisodeKey, Outcome
from failsight.episodes.meta import EpisodeMeta, RunMeta
from failsight.episodes.run import Run
from failsight.episodes.verdicts import read_verdicts
from failsight.evaluation.provenance import versions
from failsight.evaluation.scoring import replay
from failsight.interventions.arms import find_arm
from failsight.interventions.fitness import needs_fallback
from failsight.interventions.ladder_file import load_ladder
from failsight.labels.table import label_run
from failsight.monitor.bundle import load_monitor, save_adapted
from failsight.runtime.bench import Bench
from failsight.runtime.collect import collect, committed, tensor_shapes
from failsight.workflows.forks import fork_bench
from failsight.workflows.wiring import find_operator, labeler_of, make_bench, make_labeler, make_policy, make_sim


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectOptions:
    """What to collect and how."""

    policy: str = "tabletop-strong"
    sim: str = "tabletop"
    workers: int = 2
    video_share: float = 0.0
    note: str = ""
    resume: bool = False
    monitor: Path | None = None
    """Bundle that judges every tick; None: nobody does."""
    arm: str = ""
    """What acts on its alarms: an arm, or `package.module:Attribute`; a ladder is the one beside the bundle; empty: nothing
    does."""


def collect_run(
    root: Path,
    plan: Sequence[EpisodeKey],
    options: CollectOptions,
    progress: Callable[[EpisodeMeta, bool], None],
) -> Run:
    """Collect (or finish) the plan, seal it and label it.

    `progress` is called for every episode with its meta and whether it had been there already.
    """
    policy, sim = make_policy(options.policy), make_sim(options.sim)
    if options.arm and options.monitor is None:
        raise FailsightError(f"Arm {options.arm} acts on alarms; say whose with --monitor BUNDLE.")
    require_live(options)
    bundle = "" if options.monitor is None else load_monitor(options.monitor, policy).fingerprint
    with told(f"The first inference of {options.policy} in {options.sim} failed"):
        shapes = tensor_shapes(policy, sim, plan[0])
    meta = RunMeta(
        action_spec=policy.action_spec,
        observation_spec=policy.observation_spec,
        policy=policy.fingerprint,
        sim=options.sim,
        plan=tuple(plan),
        shapes=shapes,
        versions=versions(),
        note=options.note,
        video_share=options.video_share,
        bundle=bundle,
        arm=options.arm,
        labeler=labeler_of(options.sim, policy.action_spec).name,
    )
    sim.close()
    if options.resume:
        for old in committed(root):
            progress(old, True)
    new = 0
    for done in collect(root, meta, partial(_bench, options), options.workers, options.resume):
        progress(done, False)
        new += 1
    run = Run(root)
    label_run(run, make_labeler(run))
    if options.monitor is not None and new:
        learn_from(run, options.monitor)
    return run


def _bench(options: CollectOptions) -> Bench:
    """A worker's simulator and policy, and who protects it; thresholds stay as they are while the run is made."""
    if options.monitor is None:
        return make_bench(options.sim, options.policy)
    bench = fork_bench(options.sim, options.policy, options.monitor)
    if options.arm:
        bench = replace(bench, intervention=find_arm(options.arm).make(load_ladder(options.monitor)))
    return bench


def require_live(options: CollectOptions) -> None:
    """Refuse an arm that cannot act on the alarms of a single run. Raises UnknownNameError, FailsightError."""
    if not options.arm:
        return
    arm = find_arm(options.arm)
    proven = arm.gated and options.monitor is not None and bool(load_ladder(options.monitor))
    if (arm.gated and not proven) or arm.random:
        lacking = "forks that open its rungs" if arm.gated else "a random moment instead of an alarm"
        raise FailsightError(f"Arm {arm.key} needs {lacking}; leave it to: failsight run interventions")
    if needs_fallback(arm.make(load_ladder(options.monitor) if options.monitor else ())):
        raise FailsightError(f"Arm {arm.key} hands over to another policy; leave it to: failsight run interventions")
    if not arm.autonomous and find_operator(options.sim) is None:
        raise FailsightError(f"Arm {arm.key} calls a person; {options.sim} has no operator who could come.")


def learn_from(run: Run, bundle: Path) -> None:
    """Calibrate unknown tasks on the episodes of a run that the bundle watched, in their order, and keep that beside it.

    Workers judge with the thresholds of before the run, so equal keys give equal episodes however many there are.
    """
    monitor = load_monitor(bundle)
    known = monitor.thresholds.known
    unknown = [e.ticket for e in run.episodes if known is not None and e.task not in known and e.length]
    if not unknown:
        return
    touched = _touched(run, monitor.fingerprint)
    for episode in run.read(unknown):
        replay(monitor, episode)
        meta = episode.meta
        monitor.finish(meta.outcome == Outcome.SUCCESS, censored=meta.ticket in touched or not meta.scored)
    save_adapted(bundle, monitor)


def _touched(run: Run, bundle: str) -> set[int]:
    """Tickets of episodes in which something other than the policy decided."""
    tables = (frame for judge, frame in read_verdicts(run.root).items() if judge.bundle == bundle)
    return {int(t) for frame in tables for t in frame.loc[frame["decision"] != "continue", "ticket"]}
