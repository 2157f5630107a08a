"""A bundle between somebody's policy and somebody's robot, without a loop of ours: one call per control tick.

    protector = Protector("bundles/mine", rungs=["slow"], stop=robot.stop)
    protector.start("pick-cup", "pick up the cup")
    while running:
        output = policy(...) if protector.due else None
        command = protector.step(observation, output)
        robot.send(command.action)
    protector.end(success=True)

- **Once per control tick**, at the rate of the bundle's action spec, from one thread. `output` is what the policy answered
  at this tick (a chunk, or one action); None: it goes on with its chunk. `due` says when a new one is needed.
- **Never raises within an episode.** Whatever breaks (monitor, rung, observer, a wrong shape, a full disk) is a hold, a
  stop request and a latch, as in `runtime.loop`; then every further tick is a hold with `stop` until `release(by=...)`
  and `start`. A bad start (wrong access, nothing to judge) raises before anything is sent.
- **Late is never silence.** An observation, a monitor or a policy that is late by twice its own interval halves every motion, five
  times holds, twenty times latches (`interventions.watchdog` has the table).
- **Unknown is never silence.** A state that is not finite, frozen, late, twice or out of order makes the monitor blind, and
  after the bundle's `blind_steps` that is a trigger. A tick of the past is a hold. No output where one is due is a hold;
  two of three latch.
- Nothing acts unless rungs are asked for or the bundle's folder holds a ladder that forks have opened.
- Stops are requests; the emergency stop is hardware.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from failsight.core.contracts import Intervention, Monitor, Observer
from failsight.core.errors import FailsightError, SpecMismatchError, StorageError
from failsight.core.foreign import read_array, read_count, read_success, read_text
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import CONTINUE, SILENT, Array, EpisodeKey, Observation, PolicyOutput, Task, Verdict
from failsight.interventions.rung_choice import choose_rungs
from failsight.interventions.watchdog import Lateness, Watchdog
from failsight.runtime.agreement import agreed_specs, monitor_of, offered, output_of
from failsight.runtime.command import Command
from failsight.runtime.event_log import EventLog
from failsight.runtime.looks import Looks
from failsight.runtime.protecting import Protecting, guard_of
from failsight.runtime.pushed import Brought, Outside, PushedLoop
from failsight.runtime.trace import Trace

STATE = "observation.state"


class Protector:
    """Monitor, rungs and guard behind one `step`; see the module's first lines for threading, order and refusals."""

    def __init__(
        self,
        bundle: str | Path | Monitor | None,
        *,
        rungs: Sequence[str | Intervention] | None = None,
        policy: str = "",
        actions: ActionSpec | None = None,
        observations: ObservationSpec | None = None,
        execute: int = 0,
        observers: Sequence[Observer] = (),
        shadow: bool = False,
        **protecting: Unpack[Protecting],
    ) -> None:
        """Args:
            bundle: its folder, a monitor made in another way, or None: nobody judges, the guard alone works.
            rungs: arms by name or address, or interventions, mildest first; None: the ladder of the bundle's folder, if
                there is one; empty: watch only.
            policy: fingerprint of the policy, compared with the bundle's; empty: not compared.
            actions, observations: what robot and policy mean; compared with the bundle's. Needed without a bundle.
            execute: how many actions of a chunk are executed before the next inference; 0: all of it.
            observers: told of every tick when the next one comes.
            shadow: judge, and act on nothing: what the guard and the rungs would do is not done.
            protecting: see `Protecting`.

        Raises BundleError or SpecMismatchError for what cannot work: a bundle without a rate or with signals of a log,
        another policy, other names or another order of actions or state, rungs unfit for the robot, an action dimension
        that nothing says how to hold.
        """
        self.monitor, self.made_for = monitor_of(bundle)
        spec, seen = agreed_specs(self.made_for, actions, observations, policy)
        self.guard = guard_of(spec, seen, shadow, protecting)
        """That of the robot."""
        self._dog, self._looks = Watchdog(1.0 / spec.rate_hz), Looks(protecting.get("cameras", ()))
        folder = Path(bundle) if isinstance(bundle, str | Path) else None
        self._outside, self._clock, self.on_alarm = (
            Outside(spec, seen, None if shadow else protecting.get("stop"), execute),
            protecting.get("clock", time.monotonic),
            protecting.get("on_alarm"),
        )
        self.events = EventLog(Path(log) if (log := protecting.get("log")) is not None else None)
        """What changed, newest last; bounded."""
        self.intervention = None if shadow else choose_rungs(rungs, folder)
        self._loop = PushedLoop(
            self._outside,
            monitor=self.monitor,
            intervention=self.intervention,
            person=protecting.get("person"),
            fallback=protecting.get("fallback"),
            observers=(*observers, self.events),
            guard=self.guard,
            deadline_s=protecting.get("deadline_s"),
        )
        self.task: Task | None = None
        """Of the running episode; None: there is none."""
        self.key = EpisodeKey(seed=0, task="", episode=0)
        """Of the running episode, or the last one."""
        self._execute = read_count(execute, "execute")
        self._begun, self._alarm, self._episode, self._zero_s = False, False, 0, 0.0
        self._ahead_s: float | None = None
        self._ticks, self._calls = 0, 0

    @property
    def action_spec(self) -> ActionSpec:
        """What actions mean."""
        return self._outside.action_spec

    @property
    def observation_spec(self) -> ObservationSpec:
        """What the state means."""
        return self._outside.observation_spec

    @property
    def due(self) -> bool:
        """Whether the next tick needs a new output of the policy: its chunk is used up, or somebody else acted."""
        return not self._begun or self._loop.due

    @property
    def execute(self) -> int:
        """How many actions of a chunk are executed; 0: all of it."""
        return self._execute

    @property
    def over(self) -> bool:
        """Whether the episode has ended, by a stop or because something broke."""
        return self._begun and self._loop.done

    @property
    def latched(self) -> str:
        """Why nothing moves until somebody releases it; empty: it moves."""
        return self._loop.latched

    @property
    def trace(self) -> Trace:
        """What is remembered of the running or the last episode."""
        return self._loop.trace

    def require_free(self) -> None:
        """Raises FailsightError while the robot is latched."""
        if self.latched:
            raise FailsightError(f"The robot is latched ({self.latched}); release it with release(by=NAME) first.")

    def start(self, task: str, instruction: str = "", *, horizon: int = 0, key: EpisodeKey | None = None) -> None:
        """Begin an episode; the next `step` is its first tick. One that was not ended ends in a way that nobody knows.

        Args: task: its name, which decides the threshold; instruction: its text (default: the name); horizon: control
        steps after which it is a timeout, 0: not known; key: of recordings and random draws.

        Raises FailsightError while the robot is latched.
        """
        self.require_free()
        if self._begun:
            self.end(None)
        name = read_text(task, "task")
        text = read_text(instruction, "instruction") if instruction else name
        self.task = Task(id=name, suite="", instruction=text, horizon=read_count(horizon, "horizon"))
        self.key = key or EpisodeKey(seed=0, task=name, episode=self._episode)
        self._episode, self._begun, self._alarm = self._episode + 1, False, False
        self._ticks, self._calls = 0, 0

    def step(
        self,
        observation: Observation | Array,
        output: PolicyOutput | Array | None = None,
        *,
        index: int | None = None,
        time_s: float | None = None,
    ) -> Command:
        """One control tick. Returns what to send.

        Args: observation: with `observation.state` (S,), or the state itself; anything beyond is for person and
        observers. output: a `PolicyOutput`, a chunk (H, A) or an action (A,); None: the policy goes on with its chunk.
        index: control step, where the caller counts them; time_s: when the state was measured, seconds.

        Raises FailsightError before the first tick alone: no `start`, or less access than the bundle needs.
        """
        if self.task is None:
            raise FailsightError("There is no episode; call start(TASK) first.")
        if self.over:
            return self._held()
        self._calls += 1
        try:
            self._outside.brought = self._brought(observation, output, index, time_s)
            if not self._begun:
                self._begin(self._outside.brought, self.task)
            return self._tick()
        except BaseException as error:
            return self.broke("caller", error)

    def broke(self, who: str, error: BaseException) -> Command:
        """Somebody outside broke (the policy, say): a hold, a stop and a latch. Before the first tick it is raised, and
        what is no Exception, an interrupt, goes on up once the robot was told to stop.
        """
        if not self._begun:
            raise error
        if not self.over:
            with suppress(StorageError):
                self._loop.refuse(who, error)
        if not isinstance(error, Exception):
            raise error
        return self._held()

    def end(self, success: bool | None) -> Trace:
        """The episode is over; None: nobody knows how it ended, which is stored as that. Returns what is remembered."""
        if self._begun:
            self._loop.conclude(None if success is None else read_success(success, "success"))
        self.task, self._begun = None, False
        return self.trace

    def release(self, by: str, token: str = "") -> None:
        """Let go of the latch, in the name of whoever has looked at the robot; then `start` again.

        Raises FailsightError for a wrong token, where there is one.
        """
        self._loop.release(read_text(by, "by"), token)

    def _brought(self, observation: Any, output: Any, index: int | None, time_s: float | None) -> Brought:
        bare = not isinstance(observation, Mapping)
        seen = {STATE: observation} if bare else observation
        names = self.observation_spec.state
        if names and STATE not in seen:
            raise SpecMismatchError(f"the observation has no {STATE}; it should hold {', '.join(names)}")
        state = read_array(seen[STATE], STATE, (len(names),), finite=False) if names else np.zeros(0, np.float32)
        made = None if output is None else output_of(output)
        count = None if index is None else read_count(index, "index")
        return Brought(observation=seen, state=state, output=made, index=count, time_s=self._time_s(count, time_s))

    def _time_s(self, index: int | None, time_s: float | None) -> float:
        """When the state was measured, seconds since the episode began, as far as anybody says."""
        if time_s is not None:
            return float(time_s)
        self._ticks = self._ticks + 1 if index is None else index + 1
        if self._clock is None:
            return (self._ticks - 1) * (1.0 / self.action_spec.rate_hz)  # as a loop counts, to the bit
        return self._now()

    def _now(self) -> float:
        """Seconds since the first tick; without a clock, those that the calls so far should have taken."""
        if self._clock is None:
            return self._calls / self.action_spec.rate_hz
        now = self._clock()
        self._zero_s = self._zero_s if self._begun else now
        return now - self._zero_s

    def _begin(self, brought: Brought, task: Task) -> None:
        """Raises BundleError for too little access, FailsightError for a state that no episode can begin at."""
        if self.made_for is not None and brought.output is not None:
            hidden = brought.output.hidden
            self.made_for.require(offered(brought.output, self.observation_spec), 0 if hidden is None else len(hidden))
        self._outside.task = task
        self._dog.start(0.0)
        self._ahead_s = None
        self._loop.start(self.key)
        self._begun = True

    def _tick(self) -> Command:
        self._outside.told, began_s = "", self._now()
        step, verdict = self._loop.perceive()
        self.guard.late(self._lateness(began_s))
        self._loop.act(step, verdict)
        rising, self._alarm = verdict.trigger and not self._alarm, verdict.trigger
        command = self._command(verdict)
        if rising and self.on_alarm is not None:
            try:
                self.on_alarm(command)
            except Exception as error:
                self._loop.refuse("on_alarm", error)
                return self._held(verdict)
        return command

    def _lateness(self, began_s: float) -> Lateness:
        """Who is late at this tick: the observation, the monitor or the policy."""
        dog, brought, now_s = self._dog, self._outside.brought, self._now()
        assert brought is not None
        if not self._loop.past and math.isfinite(brought.time_s):
            self._ahead_s = now_s - brought.time_s if self._ahead_s is None else self._ahead_s
            dog.observed(now_s if self._clock is None else brought.time_s + self._ahead_s)
        for camera, changed, there in self._looks.at(brought.observation):
            dog.pictured(camera, changed, self._loop.moves or not there, now_s)
        dog.judged(now_s - began_s)
        if brought.output is not None:
            dog.answered(self._outside.execute)
        dog.due(self._loop.owed, now_s)
        return dog.worst(now_s)

    def _command(self, verdict: Verdict) -> Command:
        sent = self._loop.sent
        if sent is None:
            return self._held(verdict)
        return Command(
            action=sent.action,
            verdict=verdict,
            decision=sent.decision,
            driver=sent.driver,
            instruction=self._outside.told,
            guard=sent.guard,
        )

    def _held(self, verdict: Verdict = SILENT) -> Command:
        """What is said once the episode is over: a hold and a stop."""
        decision = self._loop.stopped or CONTINUE
        reason = self.latched or (decision.reason and f"stopped: {decision.reason}") or "the episode is over"
        return Command(
            action=self._loop.hold, stop=True, verdict=verdict, decision=decision, driver="hold", guard=reason
        )
