"""Where a loop stands between two ticks, and what any number of futures start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from failsight.core.contracts import Monitor, Policy, Sim
from failsight.core.types import (
    Array,
    Decision,
    DecisionKind,
    Driver,
    Lenses,
    Observation,
    PolicyOutput,
    Step,
    Verdict,
)
from failsight.interventions.guard import GuardState
from failsight.runtime.trace import Trace
from failsight.runtime.understudy import UnderstudyState

Pending = tuple[Step, Verdict]
"""A tick between its halves: what was seen, and what the monitor says of it."""


class Sent(NamedTuple):
    """A tick whose command was sent, before it is known what became of it."""

    step: Step
    verdict: Verdict
    decision: Decision
    driver: Driver
    action: Array
    """(A,) what was sent."""
    guard: str
    """What the guard did."""
    images: Mapping[str, Array]
    """(H, W, 3) pictures from before the command; empty unless an observer wants them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """Where an episode stands before a tick."""

    step: int = 0
    """Control steps taken."""
    state: Array
    """(S,) as measured."""
    last: Array
    """(A,) the last command; before there is one, what holds the robot where it was measured."""
    before: Array
    """(A,) the command before the last one; what holds the robot, before there is one."""
    output: PolicyOutput | None = None
    """The policy output in force; None: no inference yet."""
    cursor: float = 0.0
    """Position inside its chunk; a slowed policy advances by less than one per tick."""
    stale: bool = True
    """Whether the policy must infer afresh: at the start, after anybody else acted, and once it was told another thing."""
    execute: int = 0
    """How many actions of a chunk are executed where somebody decided that; 0: as many as the policy does by itself."""
    instruction: str = ""
    """What the policy was told in the middle of the episode; empty: nothing."""
    lenses: Lenses = field(default_factory=dict)
    """Through what the policy sees the cameras."""
    observation: Observation | None = None
    """What was observed at the policy's last inference, before any lens; None: nothing yet."""
    chunk: Array | None = None
    """(H, A) what is executed in place of the output's chunk until the next inference; None: that chunk."""

    def used_up(self, usual: int) -> bool:
        """Whether the policy must infer now, which by itself it does after `usual` actions."""
        if self.stale or self.output is None:
            return True
        wanted = min(self.execute, len(self.output.chunk)) if self.execute else usual
        return int(self.cursor) >= wanted

    def share(self, rate: float) -> float:
        """How much of the planned action a tick at `rate` does: no more than is left of it, so that the path stays."""
        return rate if self.cursor.is_integer() else min(rate, 1.0 - self.cursor % 1.0)

    @property
    def planned(self) -> Array | None:
        """(A,) the policy's own action of this tick; None: it is past the end of its chunk, or has none yet."""
        return None if self.output is None else self._of(self.output.chunk)

    @property
    def wanted(self) -> Array | None:
        """(A,) what is executed of the plan at this tick, its own or another chunk; None: it is past the end."""
        return self.planned if self.chunk is None else self._of(self.chunk)

    def _of(self, chunk: Array) -> Array | None:
        action: Array | None = chunk[int(self.cursor)] if int(self.cursor) < len(chunk) else None
        return action

    @property
    def past_end(self) -> str:
        """Why nothing is planned, if nothing is."""
        if self.stale:
            return "the policy has not inferred afresh since somebody else acted"
        length = 0 if self.output is None else len(self.output.chunk)
        return f"the policy is past the end of its chunk of {length} actions"

    def observed(self, observation: Observation) -> LoopState:
        """Where it stands once the cameras were looked at."""
        return replace(self, observation=observation)

    def inferred(self, output: PolicyOutput) -> LoopState:
        """Where it stands with a new policy output."""
        return LoopState(
            step=self.step,
            state=self.state,
            last=self.last,
            before=self.before,
            output=output,
            cursor=0.0,
            stale=False,
            execute=self.execute,
            instruction=self.instruction,
            lenses=self.lenses,
            observation=self.observation,
        )

    def going_by(self, chunk: Array) -> LoopState:
        """Where it stands once another chunk (H, A) is executed in place of the policy's, from the same action on."""
        return replace(self, chunk=chunk)

    def behind(self, lenses: Lenses) -> LoopState:
        """Where it stands once the policy sees through other lenses, which makes its plan void."""
        return replace(self, lenses=lenses, stale=True)

    def told(self, instruction: str) -> LoopState:
        """Where it stands once the policy was told something else, which makes its plan void."""
        return replace(self, instruction=instruction, stale=True)

    def after(self, action: Array, state: Array, driver: Driver, decision: Decision) -> LoopState:
        """Where it stands once `action` (A,), which was the driver's, led to `state` (S,)."""
        others = driver in ("intervention", "fallback", "operator") or decision.kind == DecisionKind.REPLAN
        cursor = self.cursor
        if driver == "policy":
            share = self.share(decision.rate)
            cursor = cursor + 1.0 if share == 1.0 else round(cursor + share, 9)
        return LoopState(
            step=self.step + 1,
            state=state,
            last=action,
            before=self.last,
            output=self.output,
            cursor=cursor,
            stale=self.stale or others,
            execute=self.execute if decision.execute is None else decision.execute,
            instruction=self.instruction,
            chunk=self.chunk,
            lenses=self.lenses,
            observation=self.observation,
        )

    def seen(self, action: Array, replan: bool, time_s: float) -> Step:
        """The step of this tick, whose planned action is `action` (A,)."""
        assert self.output is not None
        return Step(
            index=self.step,
            state=self.state,
            action=action,
            output=self.output,
            cursor=int(self.cursor),
            replan=replan,
            time_s=time_s,
            executed=self.last if self.step else None,
        )

    def unseen(self, hold: Array) -> Step:
        """The step of a tick that broke before anything was seen; its action is `hold` (A,)."""
        output = self.output or PolicyOutput(chunk=hold[None])
        return Step(index=self.step, state=self.state, action=hold, output=output, cursor=0, replan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Saved simulator, policy and monitor."""

    sim: bytes
    policy: bytes
    monitor: Mapping[str, Array]
    """Empty when there is none."""

    @staticmethod
    def save(sim: Sim, policy: Policy, monitor: Monitor | None) -> Parts:
        """Everything they need to go on from here."""
        memory = monitor.save_state() if monitor is not None else {}
        return Parts(sim=sim.save_state(), policy=policy.save_state(), monitor=memory)

    def load(self, sim: Sim, policy: Policy, monitor: Monitor | None) -> None:
        """Put them back, whatever they did in between."""
        sim.load_state(self.sim)
        policy.load_state(self.policy)
        if monitor is not None:
            monitor.load_state(self.monitor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A loop between the halves of a tick. Nothing that runs from it changes it."""

    parts: Parts
    at: LoopState
    guard: GuardState
    ticks: int
    """Control ticks the robot has counted."""
    trace: Trace
    """Of the ticks before this one."""
    pending: Pending
    understudy: UnderstudyState | None = None
    """None: nobody could stand in."""
