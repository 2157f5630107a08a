"""The loop turned inside out: somebody else's loop brings observation and policy output, and takes the command away.

It is the same `Loop`, one half-tick later: what became of a command is known when the next observation comes, so that
observers are told of a tick then. Monitor, intervention, guard, trace and what is done when somebody breaks are the loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from failsight.core.contracts import Intervention, Monitor, Observer, Policy, Sim
from failsight.core.errors import FailsightError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import (
    Array,
    Decision,
    DecisionKind,
    Driver,
    EpisodeKey,
    Observation,
    Outcome,
    PolicyOutput,
    Step,
    Task,
    Tick,
    Verdict,
)
from failsight.interventions.fitness import require_columns
from failsight.interventions.guard import Guard
from failsight.runtime.fork import Sent
from failsight.runtime.loop import Loop
from failsight.runtime.robot import Answer, SimRobot

_KEPT_TICKS = 10_000
"""An episode without end must not fill the memory."""
_STILL = 0.01
Person = Callable[[Observation], Array]
"""Takes over the controls when called: from an observation to an action (A,)."""


@dataclass(slots=True, kw_only=True)
class Brought:
    """What somebody else's loop brings to a tick."""

    observation: Observation
    state: Array
    """(S,) as measured."""
    output: PolicyOutput | None
    """What the policy answered at this tick; None: it goes on with its chunk."""
    index: int | None
    """Control step; None: the next one."""
    time_s: float
    """When the state was measured, seconds since the episode began."""


class Outside(SimRobot):
    """Stands where the loop has a simulator, a policy and a robot: it knows what was brought, and what is taken away."""

    def __init__(
        self,
        action_spec: ActionSpec,
        observation_spec: ObservationSpec,
        stop: Callable[[str], None] | None,
        execute: int,
    ) -> None:
        """Args: stop: hears the reason of a stop command; execute: actions of a chunk before the next inference, 0: all."""
        self.action_spec, self.observation_spec = action_spec, observation_spec
        self.fingerprint, self._stop, self._execute = "", stop, execute
        self.task = Task(id="", suite="", instruction="", horizon=0)
        self.brought: Brought | None = None
        self.output: PolicyOutput | None = None
        """The policy output in force."""
        self.taken: Array | None = None
        """(A,) what was commanded at this tick."""
        self.told = ""
        """What the policy is told at this tick instead of its instruction; empty: nothing."""
        self.ticks, self.stopped = 0, ""

    @property
    def execute(self) -> int:
        """How many actions of the chunk in force are executed."""
        return self._execute or (len(self.output.chunk) if self.output is not None else 1)

    @property
    def time_s(self) -> float:
        """Seconds since the episode began."""
        return self.brought.time_s if self.brought is not None else 0.0

    def reset(self, key: Any, *_: Any) -> Any:
        """A new episode: the state (S,) it begins at. The policy is whoever's it is, and not touched."""
        self.taken, self.stopped, self.output = None, "", None
        return self.brought.state if self.brought is not None else None

    def observe(self) -> Observation:
        """What was brought."""
        return self.brought.observation if self.brought is not None else {}

    def send(self, action: Array) -> None:
        """Keep (A,) until it is taken away."""
        self.taken = action

    def reinstruct(self, instruction: str) -> None:
        """Keep what the policy is told until it is taken away."""
        self.told = instruction

    def stop(self, reason: str) -> None:
        """Hand the reason on."""
        self.stopped = reason
        if self._stop is not None:
            self._stop(reason)


class _Absent:
    """A person, asked the way a loop asks."""

    def __init__(self, person: Person) -> None:
        self._person = person

    def act(self, sim: Any) -> Array:
        return self._person(sim.observe())


class PushedLoop(Loop):
    """A loop whose observations and policy outputs are brought, tick by tick."""

    def __init__(
        self,
        outside: Outside,
        *,
        monitor: Monitor | None,
        intervention: Intervention | None,
        person: Person | None,
        fallback: Policy | None,
        observers: Sequence[Observer],
        guard: Guard,
        deadline_s: float | None,
    ) -> None:
        super().__init__(
            cast(Sim, outside),
            cast(Policy, outside),
            monitor=monitor,
            intervention=intervention,
            fallback=fallback,
            operator=None if person is None else _Absent(person),
            observers=observers,
            robot=outside,
            guard=guard,
            deadline_s=deadline_s,
        )
        self._outside, self.sent = outside, cast(Sent | None, None)
        self.stopped: Decision | None = None
        """The decision that ended the episode in a stop; None: none did."""
        self._past, self._waiting, self._unknown = "", False, False

    @property
    def past(self) -> str:
        """Why this tick is none of the count; empty: it is."""
        return self._past

    @property
    def moves(self) -> bool:
        """Whether the last command was a motion: other than the one that would have held, by 1 % of its range."""
        spec = self.sim.action_spec
        away = np.abs(self.at.last - spec.hold(self.at.before))
        return bool((away > _STILL * (spec.high - spec.low)).any())

    @property
    def owed(self) -> bool:
        """Whether the policy still owes an output at this tick."""
        brought = self._outside.brought
        return brought is not None and brought.output is None and self.at.used_up(self._outside.execute)

    @property
    def latched(self) -> str:
        """Why nothing moves until somebody releases it; empty: it moves."""
        return self._guard.reason

    @property
    def hold(self) -> Array | None:
        """(A,) what keeps the robot where it is; None: nobody knows."""
        return self._hold if hasattr(self, "at") else None

    def start(self, key: EpisodeKey) -> None:
        """Begin the episode at the state that was brought."""
        self.sent, self.stopped, self._past, self._unknown = None, None, "", False
        super().start(key)

    @property
    def due(self) -> bool:
        """Whether the policy must infer afresh for the next tick."""
        if self.sent is None:
            return True
        after = self.at.after(self.sent.action, self.at.state, self.sent.driver, self.sent.decision)
        return after.used_up(self._outside.execute)

    def _look(self) -> Step:
        brought = self._outside.brought
        assert brought is not None
        due = self.at.step + (self.sent is not None and not self._past)
        past = brought.index is not None and brought.index < due
        self._settle(self.at.state if past else brought.state)
        self._past = f"step {brought.index} came twice or too late: step {due} is due" if past else ""
        if brought.index is not None and not past:
            self.at = replace(self.at, step=brought.index)
        self._take(brought.output)
        step = self.at.seen(
            self._guard.finite(self.at.planned, self.at.last), brought.output is not None, brought.time_s
        )
        return replace(step, index=brought.index) if past and brought.index is not None else step

    def _settle(self, state: Array) -> None:
        """The tick before is over: it led to `state` (S,), and observers are told."""
        if self.sent is None:
            self.at = replace(self.at, state=state)
            return
        sent, step, self.sent = self.sent, self.at.step, None
        self._finish(sent, Answer(state, False, False, ()))
        self.trace.forget(_KEPT_TICKS)
        if self._past:  # a tick of the past is none of the count
            self.at = replace(self.at, step=step)

    def _take(self, output: PolicyOutput | None) -> None:
        self._who = "policy"
        if output is not None:
            require_columns(output, self.sim.action_spec)
            self._outside.output, self.at = output, self.at.inferred(output)
        elif self.at.output is None:
            raise FailsightError("it gave no output at the first tick of the episode")
        self._waiting = self.at.stale

    def _wanted(self, decision: Decision) -> tuple[Array | None, Driver]:
        if self._past:
            self._guard.tell(f"held: {self._past}")
            return self._hold, "hold"
        by_policy = decision.action is None and decision.kind not in (DecisionKind.HUMAN, DecisionKind.FALLBACK)
        return (None, "policy") if self._waiting and by_policy else super()._wanted(decision)

    def _await(self, sent: Sent) -> None:
        self.sent = sent

    def _end(self, outcome: Outcome, error: str = "") -> None:
        """An ending that nobody knows teaches the monitor nothing."""
        if self._unknown and outcome in (Outcome.SUCCESS, Outcome.FAILURE):
            self.trace.outcome = Outcome.UNKNOWN
            return
        super()._end(outcome, error)

    def _stop(self, step: Step, verdict: Verdict, decision: Decision) -> None:
        self.stopped = decision
        super()._stop(step, verdict, decision)

    def refuse(self, who: str, error: BaseException) -> None:
        """Somebody outside the loop broke: a hold, a stop and a latch, as for everybody in it."""
        with suppress(Exception):  # the first reason is kept
            self._settle(self.at.state)
        self._who = who
        self._break(error, Tick(index=self.at.step, time_s=self.robot.time_s))

    def conclude(self, success: bool | None) -> None:
        """The episode is over; None: nobody knows how it ended."""
        self._unknown = success is None
        sent, self.sent = self.sent, None
        try:
            if sent is not None and not self.done:
                self._finish(sent, Answer(self.at.state, bool(success), True, ()))
        except Exception as error:
            self._break(error, Tick(index=self.at.step, time_s=self.robot.time_s))
        if not self.done:
            self._end(Outcome.SUCCESS if success else Outcome.FAILURE)
