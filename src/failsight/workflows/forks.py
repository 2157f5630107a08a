"""Arms: what happens to the same keyed episode under each intervention, by forks at the trigger.

Up to the trigger every arm is the same episode, so it is run once, saved at the trigger, and every arm's future starts
there. The placebo does the retry at a moment drawn from the alarms' own distribution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from failsight.core.errors import FailsightError
from failsight.core.harm import CollisionRule
from failsight.core.rng import keyed_rng
from failsight.core.types import FAILURE_TYPES, DecisionKind, EpisodeKey, Outcome
from failsight.episodes.verdicts import VerdictRow
from failsight.evaluation.paired import PairedEpisode
from failsight.interventions.arms import NONE, find_arm
from failsight.interventions.gate import GateEntry, gate_entry
from failsight.monitor.bundle import load_monitor
from failsight.runtime.bench import Bench
from failsight.runtime.fork import Snapshot
from failsight.runtime.loop import Loop
from failsight.runtime.pool import run_pool
from failsight.runtime.streak import ErrorStreak
from failsight.runtime.trace import Trace
from failsight.workflows.wiring import find_operator, make_bench, make_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPlan:
    """What to run at each trigger."""

    arms: tuple[str, ...]
    gate: tuple[GateEntry, ...] = ()
    placebo_steps: tuple[int | None, ...] = ()
    """Triggers of the calibration episodes; the placebo draws from them."""

    def __post_init__(self) -> None:
        for name in self.arms:
            find_arm(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkRecord:
    """One keyed episode: doing nothing, and every arm that fired."""

    key: EpisodeKey
    none: PairedEpisode
    trigger_step: int | None
    arms: dict[str, PairedEpisode]
    again: Outcome | None
    """Outcome of continuing a second time from the trigger (A/A); None without a trigger."""
    error: str = ""
    """Why doing nothing errored; empty: it did not."""
    type: str = ""
    """The failure type that was predicted at the trigger; empty: none was, or there was no trigger."""
    rows: dict[str, tuple[VerdictRow, ...]] = field(default_factory=dict, repr=False, compare=False)
    """What was judged, decided and guarded, by arm (`none` too); stored apart from the record."""


def fork_episode(plan: ArmPlan, bench: Bench, key: EpisodeKey) -> ForkRecord:
    """Run one keyed episode and all its arms."""
    loop = bench.loop()
    placebo = placebo_step(plan, key)
    saved = _run_base(loop, key, placebo, any(find_arm(name).from_start for name in plan.arms))
    base, trigger_step = loop.trace, loop.trace.trigger_step
    at_trigger = saved.get("trigger")
    arms: dict[str, PairedEpisode] = {}
    rows = {NONE: tuple(base.rows)}
    for name in plan.arms:
        arm = find_arm(name)
        snapshot = saved.get("start" if arm.from_start else "placebo" if arm.random else "trigger")
        if snapshot is not None:
            loop.resume(snapshot, arm.make(plan.gate))
            arms[name], rows[name] = summarise(key, loop.trace, True), tuple(loop.trace.rows)
    again = loop.resume(at_trigger, None) if at_trigger is not None else None
    return ForkRecord(
        key=key,
        none=summarise(key, base, False),
        trigger_step=trigger_step,
        arms=arms,
        again=again,
        error=base.error,
        type="" if at_trigger is None else at_trigger.pending[1].risk.likely_type,
        rows=rows,
    )


def placebo_step(plan: ArmPlan, key: EpisodeKey) -> int | None:
    """The keyed random moment of an episode, or None: distributed like the real alarms."""
    if not plan.placebo_steps:
        return None
    return plan.placebo_steps[int(keyed_rng(*key.parts, "placebo").integers(len(plan.placebo_steps)))]


def _run_base(loop: Loop, key: EpisodeKey, placebo: int | None, start: bool) -> dict[str, Snapshot]:
    """Do nothing to the end, saving at the first trigger, at the placebo's moment and, where `start`, at the first step;
    an error is in the trace.
    """
    saved: dict[str, Snapshot] = {}
    with suppress(Exception):
        loop.start(key)
    while not loop.done:
        pending = loop.perceive()
        step, verdict = pending
        if loop.trace.error:
            break
        if verdict.trigger and "trigger" not in saved:
            saved["trigger"] = loop.save(pending)
        if step.index == placebo:
            saved["placebo"] = loop.save(pending)
        if start and not step.index:
            saved["start"] = loop.save(pending)
        loop.act(*pending)
    return saved


def summarise(key: EpisodeKey, trace: Trace, triggered: bool) -> PairedEpisode:
    """What the statistics need of an episode."""
    assert trace.outcome is not None
    rule = CollisionRule()
    return PairedEpisode(
        task=key.task,
        outcome=trace.outcome,
        collision=any(rule.matches(event) for event in trace.events),
        triggered=triggered,
        steps=len(trace.kinds),
        intervened_steps=sum(kind != DecisionKind.CONTINUE for kind in trace.kinds),
        human_steps=trace.human_steps,
    )


def fork_bench(sim: str, policy: str, bundle: Path, fallback: str = "") -> Bench:
    """A worker's simulator, policy, monitor (which learns nothing: equal keys give equal episodes) and operator."""
    bench = make_bench(sim, policy)
    monitor = load_monitor(bundle, bench.policy, learns=False)
    return replace(
        bench, monitor=monitor, operator=find_operator(sim), fallback=make_policy(fallback) if fallback else None
    )


def run_forks(
    keys: Sequence[EpisodeKey], plan: ArmPlan, sim: str, policy: str, bundle: Path, workers: int, fallback: str = ""
) -> Iterator[ForkRecord]:
    """Fork records as they finish. Raises FailsightError after five errored episodes in a row."""
    build = partial(fork_bench, sim, policy, bundle, fallback)
    streak = ErrorStreak()
    for _, record in run_pool(build, partial(fork_episode, plan), list(keys), workers):
        yield record
        streak.saw(record.none.outcome, record.error)


def gate_from(records: Sequence[ForkRecord], rungs: Sequence[str]) -> tuple[GateEntry, ...]:
    """What the forks of development episodes say about every rung, in their order: all together, then type by type."""
    kinds = [kind for kind in FAILURE_TYPES if any(record.type == kind for record in records)]
    return tuple(_entry(records, rung, kind) for kind in ("", *kinds) for rung in rungs)


def _entry(records: Sequence[ForkRecord], rung: str, kind: str) -> GateEntry:
    told = [r for r in records if rung in r.arms and _whole(r, rung) and kind in ("", r.type)]
    return gate_entry(rung, [(_succeeds(r.none), _succeeds(r.arms[rung])) for r in told], kind)


def _succeeds(episode: PairedEpisode) -> bool:
    return episode.outcome == Outcome.SUCCESS


def require_unseen(gate: Iterable[ForkRecord], judged: Iterable[EpisodeKey]) -> None:
    """Refuse to judge a rung on the episodes that opened it, which would flatter it. Raises FailsightError."""
    both = {record.key for record in gate} & set(judged)
    if both:
        raise FailsightError(
            f"{len(both)} episodes opened rungs and would judge them, for example {min(both, key=str)}; use other seeds."
        )


def paired(
    records: Sequence[ForkRecord], arm: str, against: str = NONE
) -> tuple[list[PairedEpisode], list[PairedEpisode]]:
    """Another arm (doing nothing) and the arm on every episode; an arm that never fired did nothing there.

    Episodes that errored under either are left out: that is nobody's success or failure.

    Raises UnknownNameError for an arm that does not exist, which would differ from nothing nowhere.
    """
    for name in (arm, against):
        find_arm(name)
    whole = [r for r in records if _whole(r, arm) and _whole(r, against)]
    return [_under(r, against) for r in whole], [_under(r, arm) for r in whole]


def _under(record: ForkRecord, arm: str) -> PairedEpisode:
    return record.arms.get(arm, record.none if arm == NONE else replace(record.none, triggered=False))


def _whole(record: ForkRecord, arm: str) -> bool:
    return Outcome.ERRORED not in (record.none.outcome, record.arms.get(arm, record.none).outcome)


def aa_flips(records: Sequence[ForkRecord]) -> tuple[int, int]:
    """Continue against continue: (outcomes that differ, forks compared)."""
    pairs = [(r.none.outcome, r.again) for r in records if r.again is not None]
    return sum(a != b for a, b in pairs), len(pairs)
