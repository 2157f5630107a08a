"""A policy under watch: asked like the policy, once per control tick."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from failsight.core.errors import FailsightError
from failsight.core.types import Array, DecisionKind, EpisodeKey, Outcome
from failsight.runtime.command import Command
from failsight.runtime.policy_face import Answered, PolicyFace, to_array
from failsight.runtime.protector import Protector
from failsight.runtime.state_reader import INSTRUCTIONS, State, StateReader, said
from failsight.runtime.trace import Trace

if TYPE_CHECKING:
    from failsight.runtime.recording import Recording


class Watched:
    """A policy under watch: asked like the policy, once per control tick; see the module's first lines."""

    def __init__(
        self, face: PolicyFace, protector: Protector, recording: Recording | None, *, state: State, shadow: bool
    ) -> None:
        """Args: state: where the measured state is; shadow: nothing acts, whatever the protector says."""
        self.protector, self.command = protector, Command(action=None)
        """`command`: what was said at the last tick."""
        self._face, self._recording, self._shadow = face, recording, shadow
        self._reader = StateReader(state, protector.observation_spec)
        self._answer: Answered | None = None
        self._task, self._running, self._instruction = "", False, ""
        self._cursor, self._step = 0, 0
        self._closing = weakref.finalize(self, _close, face, protector, recording)

    def reset(self, task: str = "", instruction: str = "", *, horizon: int = 0, key: EpisodeKey | None = None) -> None:
        """Begin an episode. One that was not ended counts as ended in a way that nobody knows.

        Args: task: its name, which decides the threshold (default: what the observation says under `task` or `prompt`);
        instruction, horizon, key: as of `Protector.start`.

        Raises FailsightError while the robot is latched.
        """
        if not self._closing.alive:
            raise FailsightError("This watch is closed; put the policy under watch again.")
        self.end(None)
        if self._shadow and self.protector.latched:
            self.protector.guard.release(by="nobody: nothing acts")
        self.protector.require_free()
        self._task, self._told, self._horizon, self._key = task, instruction, horizon, key
        self._answer, self._instruction, self._cursor, self._step = None, "", 0, 0

    def step(self, observation: Any) -> Command:
        """One control tick: what to send, and why. Raises, at the first tick, what cannot work; later what a policy raises
        whom nothing acts on.
        """
        if not self._running:
            self._start(observation)
        self.command = self._watched(observation) if self._shadow else self._protected(observation)
        self._step += 1
        return self.command

    def select_action(self, observation: Any) -> Any:
        """The action (A,) of `step`, as the policy would have answered: a tensor where it answers in tensors.

        Raises FailsightError where nothing says how to hold a robot that must stop.
        """
        action = self.step(observation).action
        if action is None:
            raise FailsightError(f"Nothing can be sent: {self.command.why}. Stop the robot.")
        raw: Any = None if self._answer is None else self._answer.raw
        if not hasattr(raw, "new_tensor"):
            return action
        batched = raw.ndim == 3 or (raw.ndim == 2 and self._face.kind == "select_action")
        return raw.new_tensor(action)[None] if batched else raw.new_tensor(action)

    __call__ = select_action

    def infer(self, observation: Any) -> dict[str, Array]:
        """`step` for callers of openpi's interface: `actions` (1, A), the one action of this tick."""
        return {"actions": np.asarray(to_array(self.select_action(observation))).reshape(1, -1)}

    def end(self, success: bool | None) -> Trace:
        """The episode is over; None: nobody knows how it ended. Returns what is remembered of it.

        Raises StorageError when it could not be recorded.
        """
        self._running = False
        return _end(self.protector, self._recording, success)

    def release(self, by: str, token: str = "") -> None:
        """Let go of the latch, in the name of whoever has looked at the robot; then `reset`."""
        self.protector.release(by, token)

    def close(self) -> None:
        """The last episode is over, the recording is sealed and labelled, the policy left as it was."""
        self._running = False
        self._closing()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, observation: Any) -> None:
        task = self._task or said(observation) or "task"
        key = self._key
        if key is None and self._recording is not None:
            key = self._recording.key_of(task)
        self.protector.start(task, self._told, horizon=self._horizon, key=key)
        made = self.protector.task
        assert made is not None
        if self._recording is not None:
            self._recording.begin(made, self.protector.key)
        self._face.reset(made, self.protector.key)
        self._running = True

    def _protected(self, observation: Any) -> Command:
        protector, before = self.protector, self.command
        if protector.over:
            return protector.step(observation)
        output = None
        try:
            if self._step and before.instruction:
                self._tell(observation, before.instruction)
            if protector.due:
                if self._step and (before.driver != "policy" or before.decision.kind == DecisionKind.REPLAN):
                    self._face.forget()
                self._answer = self._face.answer(self._as_told(observation), self._step)
                output = self._answer.output
        except BaseException as error:
            return protector.broke("policy", error)
        return protector.step(self._reader.seen(observation), output)

    def _watched(self, observation: Any) -> Command:
        answer, new = self._answer, False
        if answer is None or self._cursor >= (self.protector.execute or len(answer.output.chunk)):
            self._answer, self._cursor, new = self._ask(observation), 0, True
            answer = self._answer
        action: Array = answer.output.chunk[min(self._cursor, len(answer.output.chunk) - 1)]
        self._cursor += 1
        over = self.protector.over
        command = self.protector.step(self._reader.seen(observation), answer.output if new else None)
        if command.stop and not over:
            warnings.warn(f"Nobody watches this episode any more: {command.why}", stacklevel=4)
        return replace(command, action=action, stop=False, driver="policy")

    def _ask(self, observation: Any) -> Answered:
        try:
            return self._face.answer(observation, self._step)
        except Exception as error:
            self.protector.broke("policy", error)
            raise

    def _tell(self, observation: Any, instruction: str) -> None:
        """Raises FailsightError where the policy can be told nothing."""
        if self._face.reinstruct(instruction):
            return
        if not isinstance(observation, Mapping) or not any(name in observation for name in INSTRUCTIONS):
            raise FailsightError("it can be told nothing: it has no reinstruct, its observation no task or prompt")
        self._instruction = instruction

    def _as_told(self, observation: Any) -> Any:
        """The observation with the instruction that the policy was told last."""
        if not self._instruction:
            return observation
        return {
            **observation,
            **{name: self._worded(observation[name]) for name in INSTRUCTIONS if name in observation},
        }

    def _worded(self, old: Any) -> Any:
        return [self._instruction] if isinstance(old, list) else self._instruction


def _end(protector: Protector, recording: Recording | None, success: bool | None) -> Trace:
    trace = protector.end(success)
    if recording is not None:
        recording.end(trace.outcome or Outcome.UNKNOWN, trace.error)
    return trace


def _close(face: PolicyFace, protector: Protector, recording: Recording | None) -> None:
    """Also when the process ends and nobody closed it."""
    _end(protector, recording, None)
    face.close()
    if recording is not None:
        recording.close()
