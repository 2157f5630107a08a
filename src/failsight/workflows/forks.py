"""Arms: what happens to the same keyed episode under each intervention, by forks at the trigger.

Up to the trigger every arm is the same episode, so it is run once, saved at the trigger, and every arm's future starts
there. The placebo does the retry at a moment drawn from the alarms' own distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from failsight.core.contracts import Context, Intervention
from failsight.core.errors import UnknownNameError
from failsight.core.harm import CollisionRule
from failsight.core.rng import keyed_rng
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import Decision, DecisionKind, EpisodeKey, Outcome, Verdict
from failsight.episodes.verdicts import VerdictRow
from failsight.evaluation.paired import PairedEpisode
from failsight.interventions.fitness import require_robot
from failsight.interventions.ladder import GateEntry, Ladder
from failsight.interventions.rungs import Retry, SafeStop, Slow, Takeover
from failsight.monitor.bundle import load_monitor
from failsight.runtime.bench import Bench
from failsight.runtime.loop import Loop
from failsight.runtime.pool import run_pool
from failsight.runtime.streak import ErrorStreak
from failsight.runtime.trace import Snapshot, Trace
from failsight.workflows.wiring import make_bench, make_operator

RUNGS: Mapping[str, Callable[[], Intervention]] = {
    "slow": Slow,
    "retry": Retry,
    "takeover": Takeover,
    "safe_stop": SafeStop,
}
AUTONOMOUS = ("slow", "retry")
LADDER_ORDER = (*AUTONOMOUS, "takeover")
LADDERS: Mapping[str, tuple[str, ...]] = {"ladder": LADDER_ORDER, "ladder_auto": AUTONOMOUS}
ARMS = ("placebo", *RUNGS, *LADDERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPlan:
    """What to run at each trigger."""

    arms: tuple[str, ...]
    gate: tuple[GateEntry, ...] = ()
    placebo_steps: tuple[int | None, ...] = ()
    """Triggers of the calibration episodes; the placebo draws from them."""

    def __post_init__(self) -> None:
        for name in self.arms:
            require_arm(name)


def require_arm(name: str) -> None:
    """Raises UnknownNameError with the nearest arms."""
    if name not in ARMS:
        raise UnknownNameError("arm", name, ARMS)


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
    rows: dict[str, tuple[VerdictRow, ...]] = field(default_factory=dict, repr=False, compare=False)
    """What was judged, decided and guarded, by arm (`none` too); stored apart from the record."""


class Forced:
    """Runs an intervention as if the trigger were on at its first tick only: the placebo."""

    def __init__(self, inner: Intervention) -> None:
        self._inner = inner
        self.reset()

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """What the inner one needs."""
        require_robot(self._inner, actions, observations)

    def reset(self) -> None:
        """Not fired yet."""
        self._inner.reset()
        self._fired = False

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """The inner decision for a verdict without the real trigger."""
        fake = replace(verdict, trigger=not self._fired, why="random moment (placebo)")
        self._fired = True
        return self._inner.propose(fake, context)


def make_arm(name: str, gate: Sequence[GateEntry]) -> Intervention:
    """A fresh intervention for an arm name. Raises UnknownNameError with the nearest ones."""
    require_arm(name)
    if name == "placebo":
        return Forced(Retry())
    if name in RUNGS:
        return RUNGS[name]()
    order = LADDERS[name]
    entries = {entry.rung: entry for entry in gate}
    return Ladder({rung: RUNGS[rung]() for rung in order}, order, entries)


def fork_episode(plan: ArmPlan, bench: Bench, key: EpisodeKey) -> ForkRecord:
    """Run one keyed episode and all its arms."""
    loop = bench.loop()
    placebo = placebo_step(plan, key)
    at_trigger, at_placebo = _run_base(loop, key, placebo)
    base, trigger_step = loop.trace, loop.trace.trigger_step
    arms: dict[str, PairedEpisode] = {}
    rows = {"none": tuple(base.rows)}
    for name in plan.arms:
        snapshot = at_placebo if name == "placebo" else at_trigger
        if snapshot is not None:
            loop.resume(snapshot, make_arm(name, plan.gate))
            arms[name], rows[name] = summarise(key, loop.trace, True), tuple(loop.trace.rows)
    again = loop.resume(at_trigger, None) if at_trigger is not None else None
    return ForkRecord(
        key=key,
        none=summarise(key, base, False),
        trigger_step=trigger_step,
        arms=arms,
        again=again,
        error=base.error,
        rows=rows,
    )


def placebo_step(plan: ArmPlan, key: EpisodeKey) -> int | None:
    """The keyed random moment of an episode, or None: distributed like the real alarms."""
    if not plan.placebo_steps:
        return None
    return plan.placebo_steps[int(keyed_rng(*key.parts, "placebo").integers(len(plan.placebo_steps)))]


def _run_base(loop: Loop, key: EpisodeKey, placebo: int | None) -> tuple[Snapshot | None, Snapshot | None]:
    """Do nothing to the end, saving at the first trigger and at the placebo's moment; an error is in the trace."""
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
        loop.act(*pending)
    return saved.get("trigger"), saved.get("placebo")


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


def fork_bench(sim: str, policy: str, bundle: Path) -> Bench:
    """A worker's simulator, policy, monitor (which learns nothing: equal keys give equal episodes) and operator."""
    bench = make_bench(sim, policy)
    monitor = load_monitor(bundle, bench.policy, learns=False)
    return replace(bench, monitor=monitor, operator=make_operator(sim))


def run_forks(
    keys: Sequence[EpisodeKey], plan: ArmPlan, sim: str, policy: str, bundle: Path, workers: int
) -> Iterator[ForkRecord]:
    """Fork records as they finish. Raises FailsightError after five errored episodes in a row."""
    build = partial(fork_bench, sim, policy, bundle)
    streak = ErrorStreak()
    for _, record in run_pool(build, partial(fork_episode, plan), list(keys), workers):
        yield record
        streak.saw(record.none.outcome, record.error)


def gate_from(records: Sequence[ForkRecord]) -> tuple[GateEntry, ...]:
    """What the forks of development episodes say about every rung."""
    entries = []
    for rung in LADDER_ORDER:
        rows = [r for r in records if rung in r.arms and _whole(r, rung)]
        failed = [r.none.outcome != Outcome.SUCCESS for r in rows]
        good = [r.arms[rung].outcome == Outcome.SUCCESS for r in rows]
        entries.append(
            GateEntry(
                rung=rung,
                triggers=len(rows),
                rescues=sum(f and g for f, g in zip(failed, good, strict=True)),
                harms=sum(not f and not g for f, g in zip(failed, good, strict=True)),
            )
        )
    return tuple(entries)


def paired(
    records: Sequence[ForkRecord], arm: str, against: str = "none"
) -> tuple[list[PairedEpisode], list[PairedEpisode]]:
    """Another arm (doing nothing) and the arm on every episode; an arm that never fired did nothing there.

    Episodes that errored under either are left out: that is nobody's success or failure.

    Raises UnknownNameError for an arm that does not exist, which would differ from nothing nowhere.
    """
    for name in {arm, against} - {"none"}:
        require_arm(name)
    whole = [r for r in records if _whole(r, arm) and _whole(r, against)]
    return [_under(r, against) for r in whole], [_under(r, arm) for r in whole]


def _under(record: ForkRecord, arm: str) -> PairedEpisode:
    return record.arms.get(arm, record.none if arm == "none" else replace(record.none, triggered=False))


def _whole(record: ForkRecord, arm: str) -> bool:
    return Outcome.ERRORED not in (record.none.outcome, record.arms.get(arm, record.none).outcome)


def aa_flips(records: Sequence[ForkRecord]) -> tuple[int, int]:
    """Continue against continue: (outcomes that differ, forks compared)."""
    pairs = [(r.none.outcome, r.again) for r in records if r.again is not None]
    return sum(a != b for a, b in pairs), len(pairs)
