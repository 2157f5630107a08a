"""A simulator as a robot, and calls that must answer in time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from failsight.core.contracts import Sim
from failsight.core.errors import FailsightError
from failsight.core.foreign import read_success
from failsight.core.types import Array, EpisodeKey, Event, Observation

T = TypeVar("T")


class Answer(NamedTuple):
    """What became of a command."""

    state: Array
    """(S,) as measured afterwards."""
    success: bool
    """Whether the goal holds."""
    over: bool
    """Whether the episode has ended."""
    events: tuple[Event, ...]


class SimRobot:
    """A `Robot` that is a simulator: one `send` is one control tick. A subclass may carry out `stop` as it likes."""

    def __init__(self, sim: Sim) -> None:
        self.sim = sim
        self.action_spec, self.observation_spec = sim.action_spec, sim.observation_spec
        self._dt_s = 1.0 / sim.action_spec.rate_hz if sim.action_spec.rate_hz else float("nan")
        self.ticks = 0
        """Control ticks since the episode began."""
        self.stopped = ""
        """Reason of the last stop command of this episode; empty: none."""
        self.result: tuple[dict[str, Array], float, bool, bool, dict[str, Any]] | None = None
        """What the simulator answered to the last `send`."""

    def reset(self, key: EpisodeKey) -> Array:
        """Start the episode of `key`; returns the measured state (S,)."""
        observation, _ = self.sim.reset(options={"key": key})
        self.ticks, self.stopped, self.result = 0, "", None
        return observation["observation.state"]

    @property
    def time_s(self) -> float:
        """Seconds since the episode began, as the simulator counts them."""
        return self.ticks * self._dt_s

    def observe(self) -> Observation:
        """The full observation, and under `time_s` () when it was made."""
        return {**self.sim.observe(), "time_s": np.float64(self.time_s)}  # type: ignore[dict-item]

    def send(self, action: Array) -> None:
        """One control tick with `action` (A,)."""
        self.result = self.sim.step(action)
        self.ticks += 1

    def answer(self) -> Answer:
        """What became of the last command. Raises EpisodeDataError for a success that is no yes or no."""
        assert self.result is not None
        observation, _, terminated, truncated, info = self.result
        success = read_success(info["success"], "the simulator's info")
        state, over = observation["observation.state"], bool(terminated or truncated)
        return Answer(state, success, over, tuple(self.sim.events()))

    def stop(self, reason: str) -> None:
        """A stop command; a simulator has nothing to stop and remembers the reason."""
        self.stopped = reason


class LateError(FailsightError):
    """Somebody did not answer within the deadline."""


def within(deadline_s: float | None, call: Callable[[], T], who: str) -> T:
    """The answer of `call()`; with a deadline it runs in a thread of its own that is given up when it is late.

    Raises LateError when there is no answer in time, and whatever `call` raises.
    """
    if deadline_s is None:
        return call()
    answers: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(deadline_s)
    if errors:
        raise errors[0]
    if not answers:
        raise LateError(f"no answer from the {who} within {deadline_s:g} s")
    return answers[0]
