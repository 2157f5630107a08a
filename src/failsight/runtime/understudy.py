"""Another policy that stands in for the first one."""

from __future__ import annotations

from typing import NamedTuple

from failsight.core.contracts import Policy
from failsight.core.errors import FailsightError
from failsight.core.types import Array, EpisodeKey, Observation, PolicyOutput, Task
from failsight.interventions.fitness import require_columns


class UnderstudyState(NamedTuple):
    """What a fork takes along."""

    policy: bytes
    output: PolicyOutput | None
    cursor: int
    due: int


class Understudy:
    """A policy that is asked for one action at a time, and executes its own chunks as long as it acts without a break."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._output: PolicyOutput | None = None
        self._cursor, self._due = 0, -1

    def reset(self, task: Task, key: EpisodeKey) -> None:
        """Start an episode."""
        self._policy.reset(task, key)
        self._output, self._cursor, self._due = None, 0, -1

    def act(self, observation: Observation, step: int) -> Array:
        """(A,) its action at control step `step`.

        Raises SpecMismatchError for a chunk of another robot, FailsightError past the end of one.
        """
        if self._output is None or step != self._due or self._cursor >= self._policy.execute:
            self._output, self._cursor = self._policy.infer(observation, step), 0
            require_columns(self._output, self._policy.action_spec)
        if self._cursor >= len(self._output.chunk):
            raise FailsightError(f"it is past the end of its chunk of {len(self._output.chunk)} actions")
        action: Array = self._output.chunk[self._cursor]
        self._cursor, self._due = self._cursor + 1, step + 1
        return action

    def save_state(self) -> UnderstudyState:
        """Where it stands in its chunk, and its policy's own state."""
        return UnderstudyState(self._policy.save_state(), self._output, self._cursor, self._due)

    def load_state(self, state: UnderstudyState) -> None:
        """Inverse of `save_state`."""
        self._policy.load_state(state.policy)
        _, self._output, self._cursor, self._due = state
