"""The whole idea in one loop: observe -> policy -> monitor -> intervention -> guard -> act.

A tick has two halves: `perceive` (the policy infers when its chunk is used up, the monitor judges) and `act` (the
intervention decides, the guard lets through, clips or holds, the robot is sent the command, observers are told).
Between the halves a loop can be saved, and any number of futures run from there. Whatever breaks is a hold, a stop and
a latch: the episode ends as errored, and nothing moves until somebody releases the latch, by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from failsight.core.contracts import Intervention
from failsight.core.types import SILENT, Decision, DecisionKind, EpisodeKey, Outcome, Step, Tick, Verdict
from failsight.interventions.fitness import equip, require_fallback, require_robot
from failsight.runtime.episode import Episode
from failsight.runtime.fork import Parts, Pending, Sent, Snapshot
from failsight.runtime.robot import Answer
from failsight.runtime.trace import Trace


class Loop(Episode):
    """One episode of a simulator, a policy and, when given, a monitor, an intervention and a person."""

    def run(self, until: Callable[[Step, Verdict], bool] | None = None) -> Pending | None:
        """Go on to the end, or until `until` says so between the halves of a tick; then the pending tick is returned."""
        while not self.done:
            step, verdict = self.perceive()
            if until is not None and not self.done and until(step, verdict):
                return step, verdict
            self.act(step, verdict)
        return None

    def perceive(self) -> Pending:
        """First half of a tick: look and judge. Once somebody broke, the verdict is blind and the episode over."""
        step = None
        try:
            step = self._look()
            return step, self._judge(step)
        except BaseException as error:
            known = Tick(index=self.at.step, time_s=self.robot.time_s, step=step)
            blind = replace(SILENT, blind=self._break(error, known))
        return step or self.at.unseen(self._hold), blind

    def act(self, step: Step, verdict: Verdict) -> None:
        """Second half of a tick: decide and drive. Nothing once the episode is over."""
        decision = None
        try:
            if not self.done:
                decision = self._decide(step, verdict)
                carry_out = self._stop if decision.kind == DecisionKind.STOP else self._drive
                carry_out(step, verdict, decision)
        except BaseException as error:
            self._break(error, _tick(step, verdict, decision))

    def _look(self) -> Step:
        at, replan = self.at, self.at.used_up(self.policy.execute)
        if replan:
            output = self._infer()
            at = self.at = self.at.inferred(output)
        return at.seen(self._guard.finite(at.planned, at.last), replan, self.robot.time_s)

    def _stop(self, step: Step, verdict: Verdict, decision: Decision) -> None:
        self._who = "robot"
        self.robot.stop(decision.reason)
        self._tell(_tick(step, verdict, decision, guard="stop sent"))
        self._end(Outcome.STOPPED)

    def _drive(self, step: Step, verdict: Verdict, decision: Decision) -> None:
        if decision.instruction:
            self._reinstruct(decision.instruction)
        self._look_through(decision.lenses)
        wanted, driver = self._wanted(decision)
        action = self._guard.check(wanted, self.at.last, self.at.past_end, self.at.state)
        if self._guard.latched:
            self._halt(self._guard.reason, self._hold, _tick(step, verdict, decision, driver=driver))
            return
        images = self.sim.observe() if self._films else {}
        self._who = "robot"
        self.robot.send(action)
        self._await(Sent(step, verdict, decision, driver, action, self._guard.take_note(), images))

    def _await(self, sent: Sent) -> None:
        self._finish(sent, self.robot.answer())

    def _finish(self, sent: Sent, answer: Answer) -> None:
        step, verdict, decision, driver, action, guard, images = sent
        told = _tick(
            step,
            verdict,
            decision,
            driver=driver,
            action=action,
            guard=guard,
            success=answer.success,
            over=answer.over,
            events=answer.events,
            images=images,
        )
        self._tell(told)
        self.at = self.at.after(action, answer.state, driver, decision)
        if answer.over:
            self._end(Outcome.SUCCESS if answer.success else Outcome.FAILURE)

    def save(self, pending: Pending) -> Snapshot:
        """Freeze the episode between the halves of a tick."""
        parts = Parts.save(self.sim, self.policy, self.monitor)
        return Snapshot(
            parts=parts,
            at=self.at,
            guard=self._guard.save_state(),
            ticks=self.robot.ticks,
            trace=self.trace.copy(),
            pending=pending,
            understudy=None if self._understudy is None else self._understudy.save_state(),
        )

    def resume(self, snapshot: Snapshot, intervention: Intervention | None) -> Outcome:
        """Run one future from a snapshot, to the end. Raises SpecMismatchError when `intervention` cannot work here."""
        require_fallback(intervention, self._understudy)
        require_robot(intervention, self.sim.action_spec, self.sim.observation_spec)
        equip(intervention, self.monitor)
        snapshot.parts.load(self.sim, self.policy, self.monitor)
        if self._understudy is not None and snapshot.understudy is not None:
            self._understudy.load_state(snapshot.understudy)
        self.task = self.sim.task
        self._guard.load_state(snapshot.guard)
        self.at, self.robot.ticks, self.trace = snapshot.at, snapshot.ticks, snapshot.trace.copy()
        self.intervention, self._forked = intervention, True
        if intervention is not None:
            intervention.reset()
        self.act(*snapshot.pending)
        self.run()
        assert self.trace.outcome is not None
        return self.trace.outcome


def _tick(step: Step, verdict: Verdict, decision: Decision | None, **done: Any) -> Tick:
    return Tick(index=step.index, time_s=step.time_s, step=step, verdict=verdict, decision=decision, **done)


def run_episode(loop: Loop, key: EpisodeKey) -> tuple[Trace, float]:
    """A whole episode; returns its trace and wall time in seconds."""
    began = time.monotonic()
    loop.start(key)
    loop.run()
    return loop.trace, time.monotonic() - began
