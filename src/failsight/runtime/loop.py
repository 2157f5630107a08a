"""The whole idea in one loop: look, judge, decide, act.

A `Loop` runs one episode. Each tick has two halves: `perceive` (infer when the chunk is used up, let the monitor
judge) and `act` (let the intervention decide, pass the guard, step the simulator). Between the halves a loop can be
saved and any number of futures run from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from failsight.core.contracts import Context, Intervention, Monitor, Operator, Policy, Sim
from failsight.core.specs import require_equal
from failsight.core.types import (
    CONTINUE,
    Array,
    Decision,
    DecisionKind,
    EpisodeKey,
    Event,
    Outcome,
    PolicyOutput,
    Risk,
    Step,
    Verdict,
)
from failsight.episodes.recorder import EpisodeRecorder
from failsight.interventions.guard import Guard

SILENT = Verdict(risk=Risk(p_fail=float("nan")), threshold=float("nan"), margin=float("nan"), trigger=False, why="")


@dataclass(slots=True, kw_only=True)
class Trace:
    """What happened in an episode, tick by tick."""

    risks: list[Risk] = field(default_factory=list)
    kinds: list[DecisionKind] = field(default_factory=list)
    trigger_step: int | None = None
    human_steps: int = 0
    events: list[Event] = field(default_factory=list)
    outcome: Outcome | None = None

    def copy(self) -> Trace:
        """An independent copy, for a fork."""
        return Trace(
            risks=list(self.risks),
            kinds=list(self.kinds),
            trigger_step=self.trigger_step,
            human_steps=self.human_steps,
            events=list(self.events),
            outcome=self.outcome,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A loop between the halves of a tick."""

    sim: bytes
    policy: bytes
    monitor: Mapping[str, Array]
    trace: Trace
    values: tuple[int, float, bool, PolicyOutput | None, Array, Array, tuple[Array, ...]]
    pending: tuple[Step, Verdict]


class Loop:
    """One episode of a simulator, a policy and, when given, a monitor and an intervention."""

    def __init__(
        self,
        sim: Sim,
        policy: Policy,
        *,
        monitor: Monitor | None = None,
        intervention: Intervention | None = None,
        operator: Operator | None = None,
        recorder: EpisodeRecorder | None = None,
    ) -> None:
        require_equal("Action specs of policy and simulator", policy.action_spec, sim.action_spec)
        require_equal("Observation specs of simulator and policy", sim.observation_spec, policy.observation_spec)
        self.sim, self.policy, self.monitor, self.operator = sim, policy, monitor, operator
        self.intervention, self._recorder = intervention, recorder
        self._guard = Guard(sim.action_spec)

    def start(self, key: EpisodeKey) -> None:
        """Begin the episode of `key`."""
        observation, _ = self.sim.reset(options={"key": key})
        self.task = self.sim.task
        self.policy.reset(self.task, key)
        if self.monitor is not None:
            self.monitor.reset(self.task)
        if self.intervention is not None:
            self.intervention.reset()
        self._state = observation["observation.state"]
        spec = self.sim.action_spec
        self._last = spec.hold(np.full(len(spec.dimensions), -spec.gripper_closed_sign, np.float32))
        self._step, self._cursor, self._stale = 0, 0.0, True
        self._output: PolicyOutput | None = None
        self._path: list[Array] = []
        self._guard.reset()
        self.trace = Trace()

    @property
    def done(self) -> bool:
        """Whether the episode has ended."""
        return self.trace.outcome is not None

    def perceive(self) -> tuple[Step, Verdict]:
        """First half of a tick: infer if the chunk is used up, then let the monitor judge."""
        replan = self._stale or self._output is None or int(self._cursor) >= self.policy.execute
        if replan:
            self._output, self._cursor, self._stale = self.policy.infer(self.sim.observe(), self._step), 0.0, False
        assert self._output is not None
        cursor = int(self._cursor)
        action = self._guard.finite(self._output.chunk[cursor], self._last)
        step = Step(
            index=self._step, state=self._state, action=action, output=self._output, cursor=cursor, replan=replan
        )
        verdict = self.monitor.step(step) if self.monitor is not None else SILENT
        if verdict.trigger and self.trace.trigger_step is None:
            self.trace.trigger_step = self._step
        self.trace.risks.append(verdict.risk)
        return step, verdict

    def act(self, step: Step, verdict: Verdict) -> None:
        """Second half of a tick: decide, carry out, step the simulator, record."""
        decision = self._decide(verdict)
        self.trace.kinds.append(decision.kind)
        if decision.kind == DecisionKind.STOP:
            self.trace.outcome = Outcome.STOPPED
            return
        action = self._guard.check(self._carry_out(decision, step), self._last)
        if self._guard.latched:
            self.trace.outcome = Outcome.STOPPED
            return
        images = self.sim.observe() if self._recorder is not None and self._recorder.wants_images else {}
        observation, _, terminated, truncated, info = self.sim.step(action)
        events = self.sim.events()
        self.trace.events += events
        if terminated or truncated:
            self.trace.outcome = Outcome.SUCCESS if info["success"] else Outcome.FAILURE
        if self._recorder is not None:
            self._recorder.add(step, action, bool(info["success"]), self.done, images)
            self._recorder.add_events(events)
        self._path.append(self._state)
        self._state, self._last = observation["observation.state"], action
        self._step += 1

    def _decide(self, verdict: Verdict) -> Decision:
        if self.intervention is None:
            return CONTINUE
        context = Context(
            step=self._step,
            horizon=self.task.horizon,
            state=self._state,
            path=self._path,
            last_action=self._last,
            action_spec=self.sim.action_spec,
            observation_spec=self.sim.observation_spec,
        )
        return self.intervention.propose(verdict, context)

    def _carry_out(self, decision: Decision, step: Step) -> Array:
        """The action of a decision; whoever else had the controls, the policy infers afresh afterwards."""
        if decision.kind == DecisionKind.HUMAN:
            if self.operator is None:
                return self.sim.action_spec.hold(self._last)
            self._stale = True
            self.trace.human_steps += 1
            return self.operator.act(self.sim)
        if decision.action is not None:
            self._stale = True
            return decision.action
        if decision.kind == DecisionKind.REPLAN:
            self._stale = True
        self._cursor += decision.rate
        return np.where(self.sim.action_spec.scalable, step.action * np.float32(decision.rate), step.action)

    def run(self, until: Callable[[Step, Verdict], bool] | None = None) -> tuple[Step, Verdict] | None:
        """Go on to the end, or until `until` says so between the halves of a tick; then the pending tick is returned."""
        while not self.done:
            pending = self.perceive()
            if until is not None and until(*pending):
                return pending
            self.act(*pending)
        return None

    def save(self, pending: tuple[Step, Verdict]) -> Snapshot:
        """Freeze the episode between the halves of a tick."""
        return Snapshot(
            sim=self.sim.save_state(),
            policy=self.policy.save_state(),
            monitor=self.monitor.save_state() if self.monitor is not None else {},
            trace=self.trace.copy(),
            values=(self._step, self._cursor, self._stale, self._output, self._state, self._last, tuple(self._path)),
            pending=pending,
        )

    def resume(self, snapshot: Snapshot, intervention: Intervention | None) -> Outcome:
        """Run one future from a snapshot with the given intervention, to the end."""
        self.sim.load_state(snapshot.sim)
        self.policy.load_state(snapshot.policy)
        if self.monitor is not None:
            self.monitor.load_state(snapshot.monitor)
        self.trace, self.intervention = snapshot.trace.copy(), intervention
        self._step, self._cursor, self._stale, self._output, self._state, self._last, path = snapshot.values
        self._path = list(path)
        self._guard.reset()
        if intervention is not None:
            intervention.reset()
        self.act(*snapshot.pending)
        self.run()
        assert self.trace.outcome is not None
        return self.trace.outcome


def run_episode(loop: Loop, key: EpisodeKey) -> tuple[Trace, float]:
    """A whole episode; returns its trace and wall time in seconds."""
    began = time.monotonic()
    loop.start(key)
    loop.run()
    return loop.trace, time.monotonic() - began
