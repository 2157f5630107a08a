"""One episode's parts, its beginning and its end, and what is done when somebody breaks. `runtime.loop` runs it.

Everybody is asked by name and within a deadline, so that the reason of an errored episode says who broke. Whatever
breaks is a hold, a stop and a latch; observers are told of it like of any tick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import numpy as np

from failsight.core.contracts import Context, Intervention, Monitor, Observer, Operator, Policy, Sim
from failsight.core.errors import FailsightError, StorageError
from failsight.core.lens import look_through
from failsight.core.types import (
    CONTINUE,
    SILENT,
    Array,
    Decision,
    DecisionKind,
    Driver,
    EpisodeKey,
    Lenses,
    Outcome,
    PolicyOutput,
    Step,
    Tick,
    Verdict,
)
from failsight.interventions.fitness import equip, require_columns, require_fallback, require_fit
from failsight.interventions.guard import Guard
from failsight.interventions.motion import Motion
from failsight.runtime.fork import LoopState
from failsight.runtime.halt import halt, told
from failsight.runtime.robot import SimRobot, within
from failsight.runtime.trace import Trace
from failsight.runtime.understudy import Understudy

T = TypeVar("T")


class Episode:
    """Who takes part in an episode, where it stands (`at`), and what is kept of it (`trace`)."""

    at: LoopState

    def __init__(
        self,
        sim: Sim,
        policy: Policy,
        *,
        monitor: Monitor | None = None,
        intervention: Intervention | None = None,
        operator: Operator | None = None,
        fallback: Policy | None = None,
        observers: Sequence[Observer] = (),
        robot: SimRobot | None = None,
        guard: Guard | None = None,
        deadline_s: float | None = None,
    ) -> None:
        """Args: fallback: who acts where another policy is asked for; observers: who is told of every tick, besides the trace; robot: what commands and stops go to (default:
        the simulator); guard: one that is shared by all loops of a robot, so that a latch outlives them; deadline_s:
        longest wait for policy, monitor, intervention or operator; None: as long as they take.

        Raises SpecMismatchError when the parts do not fit together (`require_fit`).
        """
        require_fit(sim, policy, intervention)
        equip(intervention, monitor)
        if fallback is not None:
            require_fit(sim, fallback, None)
        require_fallback(intervention, fallback)
        self._understudy = None if fallback is None else Understudy(fallback)
        self.sim, self.policy, self.monitor, self.operator = sim, policy, monitor, operator
        self.intervention, self._deadline_s = intervention, deadline_s
        self.robot, self._guard = robot or SimRobot(sim), guard or Guard(sim.action_spec)
        self._observers, self._films = tuple(observers), any(observer.wants_images for observer in observers)
        self.trace, self._who, self._forked = Trace(), "simulator", False
        self._motion = Motion(sim.action_spec)

    @property
    def done(self) -> bool:
        """Whether the episode has ended."""
        return self.trace.outcome is not None

    def start(self, key: EpisodeKey) -> None:
        """Begin the episode of `key`. Raises FailsightError while the robot is latched, and whatever a reset raises."""
        if self._guard.latched:
            raise FailsightError(
                f"The robot is latched ({self._guard.reason}); release it with release(by=NAME) first."
            )
        self.trace, self._forked = Trace(), False
        self._guard.reset()
        try:
            self.at = self._reset(key)
        except BaseException as error:
            self._halt(told(self._who, error), None, Tick(index=0, time_s=self.robot.time_s))
            raise

    def _reset(self, key: EpisodeKey) -> LoopState:
        self._who = "simulator"
        state = self.robot.reset(key)
        self.task = self.sim.task
        self._who = "policy"
        self.policy.reset(self.task, key)
        if self._understudy is not None:
            self._who = "fallback policy"
            self._understudy.reset(self.task, key)
        self._who = "monitor"
        if self.monitor is not None:
            self.monitor.reset(self.task)
        self._who = "intervention"
        if self.intervention is not None:
            self.intervention.reset()
        self._who = "robot"
        held = self.sim.action_spec.first(state, self.sim.observation_spec.state)
        return LoopState(state=state, last=held, before=held)

    def release(self, by: str, token: str = "") -> None:
        """Let go of the latch, if it is on; who did it is recorded. In simulation a reset of the simulator does.

        Raises FailsightError for a wrong token, where the guard has one.
        """
        if self._guard.latched:
            self._guard.release(by, token)
            self._tell(Tick(index=len(self.trace.path), time_s=self.robot.time_s, guard=self._guard.take_note()))

    def _ask(self, who: str, question: Callable[[], T]) -> T:
        """Somebody's answer, within the deadline. Raises LateError, and whatever they raise."""
        self._who = who
        return within(self._deadline_s, question, who)

    def _infer(self) -> PolicyOutput:
        """The policy's answer to what is observed now."""
        self._who = "robot"
        observation = self.robot.observe()
        self.at = self.at.observed(observation)
        self._who = "lens"
        seen = look_through(self.at.lenses, observation) if self.at.lenses else observation
        output = self._ask("policy", lambda: self.policy.infer(seen, self.at.step))
        require_columns(output, self.sim.action_spec)
        return output

    def _judge(self, step: Step) -> Verdict:
        """What the monitor says of a step."""
        monitor = self.monitor
        return SILENT if monitor is None else self._ask("monitor", lambda: monitor.step(step))

    def _decide(self, step: Step, verdict: Verdict) -> Decision:
        """What the intervention makes of a step and its verdict."""
        if (intervention := self.intervention) is None:
            return CONTINUE
        context = Context(
            step=self.at.step,
            horizon=self.task.horizon,
            state=self.at.state,
            path=self.trace.path,
            last_action=self.at.last,
            action_spec=self.sim.action_spec,
            observation_spec=self.sim.observation_spec,
            sent=self.trace.sent,
            output=self.at.output,
            instruction=self.at.instruction or self.task.instruction,
            task=self.task,
            observation=self.at.observation,
            fresh=step.replan,
        )
        return self._ask("intervention", lambda: intervention.propose(verdict, context))

    def _reinstruct(self, instruction: str) -> None:
        """Tell the policy something else in the middle of the episode, unless that is what it was told last."""
        if instruction != self.at.instruction:
            self._ask("policy", lambda: self.policy.reinstruct(instruction))
            self.at = self.at.told(instruction)

    def _look_through(self, lenses: Lenses | None) -> None:
        """Show the policy the cameras through other lenses from now on; None: as before."""
        if lenses is not None:
            self.at = self.at.behind(dict(lenses))

    def _wanted(self, decision: Decision) -> tuple[Array | None, Driver]:
        """(A,) what a decision wants sent, and whose it is; None: the policy has nothing."""
        if decision.kind == DecisionKind.HUMAN:
            if (operator := self.operator) is None:
                return self._hold, "hold"
            return self._ask("operator", lambda: operator.act(self.sim)), "operator"
        if decision.kind == DecisionKind.FALLBACK:
            return self._stand_in(decision)
        if decision.action is not None:
            return self._limited(decision.action, decision), "intervention"
        if self.at.stale:
            return self._hold, "hold"
        if decision.chunk is not None:
            self.at = self.at.going_by(decision.chunk)
        planned, share = self.at.wanted, self.at.share(decision.rate)
        if planned is not None and share < 1.0:
            planned = self._motion.slowed(planned, self.at.last, self.at.cursor % 1.0, share)
        return (planned if decision.limits is None else self._limited(planned, decision)), "policy"

    def _stand_in(self, decision: Decision) -> tuple[Array | None, Driver]:
        """(A,) what another policy wants sent; a hold where there is none."""
        if (understudy := self._understudy) is None:
            return self._hold, "hold"
        self._who = "robot"
        observation, step = self.robot.observe(), self.at.step
        action = self._ask("fallback policy", lambda: understudy.act(observation, step))
        return self._limited(action, decision), "fallback"

    def _limited(self, action: Array | None, decision: Decision) -> Array | None:
        """(A,) an action under the decision's caps; what is no action the guard says."""
        if action is None or decision.limits is None or np.shape(action) != self.at.last.shape:
            return action
        self._who = "intervention"
        return self._motion.limited(action, self.at.last, self.at.before, decision.limits)

    def _told(self) -> Sequence[Observer]:
        return (*self._observers, self.trace)

    @property
    def _hold(self) -> Array:
        """(A,) what keeps the robot where it is."""
        return self.sim.action_spec.hold(self.at.last)

    def _tell(self, tick: Tick) -> None:
        for observer in self._told():
            self._who = observer.name
            observer.observe(tick)

    def _break(self, error: BaseException, known: Tick) -> str:
        """Somebody raised: halt, end as errored. What is not an Exception goes on up, as a full disk does."""
        reason = told(self._who, error)
        self._halt(reason, self._hold, known)
        if not isinstance(error, Exception) or isinstance(error, StorageError):
            raise error
        return reason

    def _halt(self, reason: str, hold: Array | None, known: Tick) -> None:
        """Hold, stop, latch, tell, end as errored."""
        sent = halt(self.robot, hold, reason)
        self._guard.latch(reason)
        tick = replace(known, guard=f"{self._guard.take_note()}; {sent}")
        for observer in self._told():
            with suppress(Exception):  # the reason is known; who is only told cannot change it
                observer.observe(tick)
        self._end(Outcome.ERRORED, reason)

    def _end(self, outcome: Outcome, error: str = "") -> None:
        """The episode is over; the monitor is told, except in a fork, whose episode it was told of already."""
        self.trace.outcome, self.trace.error = outcome, error
        finish = getattr(self.monitor, "finish", None)
        if finish is not None and not self._forked:
            try:
                finish(outcome == Outcome.SUCCESS, censored=not self.trace.left_alone)
            except Exception as problem:
                self.trace.outcome, self.trace.error = Outcome.ERRORED, error or told("monitor", problem)
