"""The whole idea in one loop: look, judge, decide, act; whatever breaks is a hold, a stop and a latch.

A `Loop` runs one episode. Each tick has two halves: `perceive` (infer when the chunk is used up, let the monitor
judge) and `act` (let the intervention decide, pass the guard, send the command). Between the halves a loop can be
saved and any number of futures run from there. An exception anywhere ends the episode as errored, after a hold and a
stop command; the latch that stays on afterwards is released by somebody, by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from failsight.core.contracts import Context, Intervention, Monitor, Operator, Policy, Sim
from failsight.core.errors import EpisodeDataError, FailsightError, SpecMismatchError, StorageError
from failsight.core.foreign import read_success
from failsight.core.specs import require_equal
from failsight.core.types import (
    CONTINUE,
    Array,
    Decision,
    DecisionKind,
    EpisodeKey,
    Outcome,
    PolicyOutput,
    Risk,
    Step,
    Verdict,
)
from failsight.episodes.recorder import EpisodeRecorder
from failsight.episodes.verdicts import VerdictRow
from failsight.interventions.fitness import require_robot
from failsight.interventions.guard import Guard
from failsight.runtime.robot import SimRobot, within
from failsight.runtime.trace import Snapshot, Trace

NAN = float("nan")
SILENT = Verdict(risk=Risk(p_fail=NAN), threshold=NAN, margin=NAN, trigger=False, why="")


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
        robot: SimRobot | None = None,
        guard: Guard | None = None,
        deadline_s: float | None = None,
    ) -> None:
        """Args: robot: what commands and stops go to (default: the simulator); guard: one that is shared by all loops
        of a robot, so that a latch outlives them; deadline_s: longest wait for policy, monitor, intervention or
        operator; None: as long as they take.

        Raises SpecMismatchError when policy and simulator mean different things, or nothing says how to hold still,
        or the intervention cannot work on this robot.
        """
        require_equal("Action specs of policy and simulator", policy.action_spec, sim.action_spec)
        require_equal("Observation specs of simulator and policy", sim.observation_spec, policy.observation_spec)
        require_robot(intervention, sim.action_spec, sim.observation_spec)
        names = sim.observation_spec.state
        sim.action_spec.first(np.zeros(len(names)), names)
        self.sim, self.policy, self.monitor, self.operator = sim, policy, monitor, operator
        self.intervention, self._recorder, self._deadline_s = intervention, recorder, deadline_s
        self.robot = robot or SimRobot(sim)
        self._guard = guard or Guard(sim.action_spec)
        self.trace, self._who, self._forked = Trace(), "simulator", False

    def start(self, key: EpisodeKey) -> None:
        """Begin the episode of `key`. Raises FailsightError while the robot is latched, and whatever a reset raises."""
        if self._guard.latched:
            raise FailsightError(
                f"The robot is latched ({self._guard.reason}); release it with release(by=NAME) first."
            )
        self.trace, self._who, self._forked = Trace(), "simulator", False
        self._guard.reset()
        try:
            self._start(key)
        except BaseException as error:
            self._halt(_told(self._who, error), ("stop",))
            self._end(Outcome.ERRORED, _told(self._who, error))
            raise

    def _start(self, key: EpisodeKey) -> None:
        self._step, self._cursor, self._stale = 0, 0.0, True
        self._output: PolicyOutput | None = None
        self._path: list[Array] = []
        self._state = self.robot.reset(key)
        self.task = self.sim.task
        self._who = "policy"
        self.policy.reset(self.task, key)
        self._who = "monitor"
        if self.monitor is not None:
            self.monitor.reset(self.task)
        self._who = "intervention"
        if self.intervention is not None:
            self.intervention.reset()
        self._who = "robot"
        self._last = self.sim.action_spec.first(self._state, self.sim.observation_spec.state)
        if not np.isfinite(self._last).all():
            raise EpisodeDataError("the state measured at the start is not finite; nothing says how to hold still")

    @property
    def done(self) -> bool:
        """Whether the episode has ended."""
        return self.trace.outcome is not None

    def perceive(self) -> tuple[Step, Verdict]:
        """First half of a tick: infer if the chunk is used up, then let the monitor judge.

        When somebody breaks, the episode is over and the verdict says blind.
        """
        try:
            return self._perceive()
        except BaseException as error:
            reason = self._break(error)
        hold = self.sim.action_spec.hold(self._last)
        output = self._output or PolicyOutput(chunk=hold[None])
        step = Step(index=self._step, state=self._state, action=hold, output=output, cursor=0, replan=False)
        return step, Verdict(risk=Risk(p_fail=NAN), threshold=NAN, margin=NAN, trigger=False, why="", blind=reason)

    def _perceive(self) -> tuple[Step, Verdict]:
        replan = self._stale or self._output is None or int(self._cursor) >= self.policy.execute
        if replan:
            self._output, self._cursor, self._stale = self._infer(), 0.0, False
        assert self._output is not None
        cursor, chunk = int(self._cursor), self._output.chunk
        past = f"the policy is past the end of its chunk of {len(chunk)} actions"
        action = self._guard.finite(chunk[cursor] if cursor < len(chunk) else None, self._last, past)
        step = Step(
            index=self._step,
            state=self._state,
            action=action,
            output=self._output,
            cursor=cursor,
            replan=replan,
            time_s=self.robot.time_s,
            executed=self._last if self._step else None,
        )
        verdict = SILENT
        if self.monitor is not None:
            self._who, monitor = "monitor", self.monitor
            verdict = within(self._deadline_s, lambda: monitor.step(step), "monitor")
        if verdict.trigger and self.trace.trigger_step is None:
            self.trace.trigger_step = self._step
        self.trace.risks.append(verdict.risk)
        return step, verdict

    def _infer(self) -> PolicyOutput:
        self._who = "robot"
        observation = self.robot.observe()
        self._who = "policy"
        output = within(self._deadline_s, lambda: self.policy.infer(observation, self._step), "policy")
        if output.chunk.shape[1] != len(self.sim.action_spec.dimensions):
            raise SpecMismatchError(
                f"its chunk has {output.chunk.shape[1]} columns for the {len(self.sim.action_spec.dimensions)} action "
                f"dimensions {', '.join(self.sim.action_spec.names)}"
            )
        return output

    def act(self, step: Step, verdict: Verdict) -> None:
        """Second half of a tick: decide, carry out, send the command, record. Nothing once the episode is over."""
        if self.done:
            return
        try:
            self._act(step, verdict)
        except BaseException as error:
            self._break(error)

    def _act(self, step: Step, verdict: Verdict) -> None:
        decision = self._decide(verdict)
        self.trace.kinds.append(decision.kind)
        if decision.kind == DecisionKind.STOP:
            self._who = "robot"
            self.robot.stop(decision.reason)
            self._note(verdict, decision, "stop sent")
            self._end(Outcome.STOPPED)
            return
        action, own = self._carry_out(decision, step)
        action = self._guard.check(action, self._last, own)
        if self._guard.latched:
            self._halt(self._guard.reason, verdict=verdict, decision=decision)
            self._end(Outcome.ERRORED, self._guard.reason)
            return
        self._note(verdict, decision)
        self._tick(step, action)

    def _tick(self, step: Step, action: Array) -> None:
        images = self.sim.observe() if self._recorder is not None and self._recorder.wants_images else {}
        self._who = "robot"
        self.robot.send(action)
        assert self.robot.result is not None
        observation, _, terminated, truncated, info = self.robot.result
        success = read_success(info["success"], "the simulator's info")
        events = self.sim.events()
        self.trace.events += events
        over = bool(terminated or truncated)
        self._who = "recorder"
        if self._recorder is not None:
            self._recorder.add(step, action, success, over, images)
            self._recorder.add_events(events)
        self._path.append(self._state)
        self._state, self._last = observation["observation.state"], action
        self._step += 1
        if over:
            self._end(Outcome.SUCCESS if success else Outcome.FAILURE)

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
        self._who, intervention = "intervention", self.intervention
        return within(self._deadline_s, lambda: intervention.propose(verdict, context), "intervention")

    def _carry_out(self, decision: Decision, step: Step) -> tuple[Array, bool]:
        """The action of a decision, and whether it is the policy's; after anybody else's the policy infers afresh."""
        if decision.kind == DecisionKind.HUMAN:
            if self.operator is None:
                return self.sim.action_spec.hold(self._last), False
            self._stale = True
            self.trace.human_steps += 1
            self._who, operator = "operator", self.operator
            return within(self._deadline_s, lambda: operator.act(self.sim), "operator"), False
        if decision.action is not None:
            self._stale = True
            return decision.action, False
        if decision.kind == DecisionKind.REPLAN:
            self._stale = True
        self._cursor += decision.rate
        return np.where(self.sim.action_spec.scalable, step.action * np.float32(decision.rate), step.action), True

    def _break(self, error: BaseException) -> str:
        """Somebody raised: hold, stop, latch, end as errored. What is not an Exception goes on up, as a full disk does."""
        reason = _told(self._who, error)
        self._halt(reason)
        self._end(Outcome.ERRORED, reason)
        if not isinstance(error, Exception) or isinstance(error, StorageError):
            raise error
        return reason

    def _halt(
        self,
        reason: str,
        commands: tuple[str, ...] = ("hold", "stop"),
        verdict: Verdict = SILENT,
        decision: Decision = CONTINUE,
    ) -> None:
        """A hold, a stop command, a latch; each is tried whatever became of the others."""
        said = []
        for name in commands:
            try:
                if name == "hold":
                    self.robot.send(self.sim.action_spec.hold(self._last))
                else:
                    self.robot.stop(reason)
                said.append(f"{name} sent")
            except Exception as error:
                said.append(f"{name} not sent ({error})")
        self._guard.latch(reason)
        self._note(verdict, decision, ", ".join(said))

    def release(self, by: str) -> None:
        """Let go of the latch, if it is on; who did it is recorded. In simulation a reset of the simulator does."""
        if not self._guard.latched:
            return
        self._guard.release(by)
        self._note(SILENT, CONTINUE)

    def _note(self, verdict: Verdict, decision: Decision, guard: str = "") -> None:
        """Keep what was judged, decided and guarded; where nobody judges or decides, only what the guard did."""
        if self.monitor is None and self.intervention is None and not guard and not self._guard.note:
            return
        guard = "; ".join(part for part in (self._guard.note, guard) if part)
        self._guard.note = ""
        row = VerdictRow(
            step=self._step,
            time_s=self.robot.time_s,
            p_fail=verdict.risk.p_fail,
            threshold=verdict.threshold,
            margin=verdict.margin,
            trigger=verdict.trigger,
            why=verdict.why,
            blind=verdict.blind,
            decision=str(decision.kind),
            reason=decision.reason,
            guard=guard,
        )
        self.trace.rows.append(row)
        if self._recorder is not None:
            self._recorder.add_verdict(row)

    def _end(self, outcome: Outcome, error: str = "") -> None:
        """The episode is over; the monitor is told, except in a fork, whose episode it was told of already."""
        self.trace.outcome, self.trace.error = outcome, error
        finish = getattr(self.monitor, "finish", None)
        if finish is not None and not self._forked:
            try:
                finish(outcome == Outcome.SUCCESS, censored=not self.trace.left_alone)
            except Exception as problem:
                self.trace.outcome, self.trace.error = Outcome.ERRORED, error or _told("monitor", problem)

    def run(self, until: Callable[[Step, Verdict], bool] | None = None) -> tuple[Step, Verdict] | None:
        """Go on to the end, or until `until` says so between the halves of a tick; then the pending tick is returned."""
        while not self.done:
            pending = self.perceive()
            if until is not None and not self.done and until(*pending):
                return pending
            self.act(*pending)
        return None

    def save(self, pending: tuple[Step, Verdict]) -> Snapshot:
        """Freeze the episode between the halves of a tick."""
        loop = (self._step, self._cursor, self._stale, self._output, self._state, self._last, tuple(self._path))
        return Snapshot(
            sim=self.sim.save_state(),
            policy=self.policy.save_state(),
            monitor=self.monitor.save_state() if self.monitor is not None else {},
            trace=self.trace.copy(),
            values=(*loop, self._guard.save_state(), self.robot.ticks),
            pending=pending,
        )

    def resume(self, snapshot: Snapshot, intervention: Intervention | None) -> Outcome:
        """Run one future from a snapshot with the given intervention, to the end. Raises SpecMismatchError at once when
        it cannot work on this robot.
        """
        require_robot(intervention, self.sim.action_spec, self.sim.observation_spec)
        self.sim.load_state(snapshot.sim)
        self.policy.load_state(snapshot.policy)
        if self.monitor is not None:
            self.monitor.load_state(snapshot.monitor)
        self.trace, self.intervention, self._forked = snapshot.trace.copy(), intervention, True
        (*loop, path, guard, self.robot.ticks) = snapshot.values
        self._step, self._cursor, self._stale, self._output, self._state, self._last = loop
        self._path = list(path)
        self._guard.load_state(guard)
        if intervention is not None:
            intervention.reset()
        self.act(*snapshot.pending)
        self.run()
        assert self.trace.outcome is not None
        return self.trace.outcome


def _told(who: str, error: BaseException) -> str:
    """Who broke and how, in one line."""
    said = " ".join(str(error).split())
    kind = "" if isinstance(error, FailsightError) and said else type(error).__name__
    return ": ".join(part for part in (who, kind, said) if part)


def run_episode(loop: Loop, key: EpisodeKey) -> tuple[Trace, float]:
    """A whole episode; returns its trace and wall time in seconds."""
    began = time.monotonic()
    loop.start(key)
    loop.run()
    return loop.trace, time.monotonic() - began
