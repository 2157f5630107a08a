"""What a monitor must be able to see before it can judge; whatever is missing, frozen, late or twice there is said.

| blind because | when |
|---|---|
| order | a step comes twice, after a later one, or others before it never came |
| time | its state was not measured after the last one, or more than three ticks after it |
| chunk | the policy has run past the end of its own chunk |
| output | chunk, hidden state, samples or ensemble of the policy are not finite |
| state | it is not finite, or the same to the last bit for five ticks while motion was commanded |
| signal | one that training always had is missing, or holds one value much longer than it ever did in training |

Frozen and stuck count only while the command is not a hold: who stands still looks the same all the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_count
from failsight.core.specs import ActionSpec
from failsight.core.types import Array, Step

FROZEN_AFTER = 5
"""Ticks of one and the same state, to the last bit, while motion was commanded."""
_LATE_TICKS = 3.5
_STILL = 0.01
"""Share of a dimension's range within which a command is a hold."""
_NEVER = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """What training says about every signal."""

    always: tuple[bool, ...]
    """Whether it was finite at every step."""
    stuck_after: tuple[int, ...]
    """Ticks of one value from which it is stuck; 0: it often holds one value, so that says nothing."""

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"always": list(self.always), "stuck_after": list(self.stuck_after)}

    @staticmethod
    def from_dict(data: Mapping[str, Any], signals: int) -> Usual:
        """Inverse of `as_dict`. Raises EpisodeDataError when it is not about that many signals."""
        always, stuck = list(data["always"]), [read_count(n, "usual, stuck_after") for n in data["stuck_after"]]
        if len(always) != signals or len(stuck) != signals or not all(isinstance(value, bool) for value in always):
            raise EpisodeDataError(f"usual: expected {signals} flags and counts, one per signal.")
        return Usual(always=tuple(always), stuck_after=tuple(stuck))


def usual_of(episodes: Sequence[Array]) -> Usual:
    """From the signals (T, S) of training episodes: stuck is twice the longest run of one value ever seen, and 10 ticks.

    A signal whose longest run exceeds a quarter of the median episode says nothing by standing still.
    """
    always = np.all([np.isfinite(e).all(0) for e in episodes], axis=0)
    longest = np.max([_longest_runs(e) for e in episodes], axis=0)
    quarter = float(np.median([len(e) for e in episodes])) / 4
    stuck = np.where(longest <= quarter, 2 * longest + 10, 0)
    return Usual(always=tuple(map(bool, always)), stuck_after=tuple(map(int, stuck)))


def _longest_runs(values: Array) -> Array:
    """(T, S) -> (S,) length of the longest run of one value."""
    run = np.ones(values.shape[1], int)
    longest = run.copy()
    for same in values[1:] == values[:-1]:
        run = np.where(same, run + 1, 1)
        np.maximum(longest, run, out=longest)
    return longest


class Senses:
    """Streaming checks of one episode; says nothing ("") while everything can be seen."""

    def __init__(self, names: Sequence[str], actions: ActionSpec | None = None, usual: Usual | None = None) -> None:
        """Args: names: of the signals; actions: None where commands are not known; usual: None: nothing is expected."""
        self._names, self._has_usual = tuple(names), usual is not None
        always = usual.always if usual else (False,) * len(names)
        self._expected = np.flatnonzero(always)
        stuck = usual.stuck_after if usual else (0,) * len(names)
        self._limits = np.array([n or _NEVER for n in stuck], np.int64)
        dimensions = actions.dimensions if actions else ()
        self._still = np.array([np.nan if d.still is None else d.still for d in dimensions], np.float32)
        self._slack = np.array([_STILL * (d.high - d.low) for d in dimensions], np.float32)
        self._targets = np.array([d.still is None and d.kind != "binary" for d in dimensions], bool)
        self._dt_s = 1.0 / actions.rate_hz if actions and actions.rate_hz else float("nan")
        self._last_signals, self._runs = np.full(len(names), np.nan), np.ones(len(names), np.int64)
        self._changed = np.zeros(len(names), bool)
        self.reset()

    def reset(self) -> None:
        """A new episode."""
        self._next, self._frozen, self._time_s, self._output = 0, 0, float("nan"), ""
        self._state = b""
        self._command: Array | None = None
        self._moving = True
        self._last_signals[:] = np.nan
        self._runs[:] = 1

    def order(self, record: Step) -> str:
        """Why this step cannot be taken in at all: it is a step of the past."""
        if record.index >= self._next:
            return ""
        return f"step {record.index} came twice or too late: step {self._next} is due"

    def look(self, record: Step, signals: Array) -> tuple[str, str]:
        """(what cannot be judged from, what makes the judgement doubtful) at this step, each empty when there is none.

        `signals` (S,) are this step's, NaN where one is missing.
        """
        if record.replan:
            self._output = _broken_output(record)
        self._move(record)
        gap = record.index - self._next
        self._next = record.index + 1
        missing = self._output or self._bad_state(record) or self._missing(signals)
        doubtful = f"{gap} steps before step {record.index} are missing" if gap else ""
        late, frozen, stuck = self._late(record), self._frozen_state(record), self._stuck(signals)
        doubtful = doubtful or _past_chunk(record) or late or frozen or stuck
        self._time_s = record.time_s
        return missing, doubtful

    @property
    def output(self) -> str:
        """What is wrong with the policy output in force."""
        return self._output

    def _move(self, record: Step) -> None:
        """Whether the command sent at the step before was a motion; where commands are not known it always is."""
        command = record.executed
        if command is None or not len(self._still):
            self._moving = True
            return
        away = (np.abs(command - self._still) > self._slack).any()
        if not away and self._command is not None:
            away = (self._targets & (np.abs(command - self._command) > self._slack)).any()
        self._moving, self._command = bool(away), command

    @staticmethod
    def _bad_state(record: Step) -> str:
        return "" if _finite(record.state) else "the state is not finite"

    def _missing(self, signals: Array) -> str:
        if self._has_usual:
            wanted = signals[self._expected]
            if _finite(wanted):
                return ""
            lost = [self._names[i] for i in self._expected[~np.isfinite(wanted)]]
            return f"signals are missing: {', '.join(lost)}"
        return "" if not len(signals) or np.isfinite(signals).any() else "all signals are missing"

    def _late(self, record: Step) -> str:
        passed = record.time_s - self._time_s
        if passed <= 0:
            return f"its state is as old as the one before ({record.time_s:.3f} s)"
        if passed > _LATE_TICKS * self._dt_s:
            return f"its state came {passed:.3f} s after the one before, due after {self._dt_s:.3f} s"
        return ""

    def _frozen_state(self, record: Step) -> str:
        measured = record.state.tobytes()
        if not measured or measured != self._state:
            self._frozen = 0
        elif self._moving:
            self._frozen += 1
        self._state = measured
        return f"the state has been frozen for {self._frozen} ticks of motion" if self._frozen >= FROZEN_AFTER else ""

    def _stuck(self, signals: Array) -> str:
        if not self._has_usual:
            return ""
        np.not_equal(signals, self._last_signals, out=self._changed)
        self._runs += self._moving
        self._runs[self._changed] = 1
        self._last_signals[:] = signals
        np.greater_equal(self._runs, self._limits, out=self._changed)
        if not self._changed.any():
            return ""
        held = [self._names[i] for i in np.flatnonzero(self._runs >= self._limits)]
        return f"signals are stuck at one value: {', '.join(held)}"

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode: `scalars` (5,), `signals`, `runs` (S,), `state` as bytes, `command` (A,)."""
        state = {
            "scalars": np.array([self._next, self._frozen, self._time_s, self._moving, self._output != ""]),
            "signals": self._last_signals.copy(),
            "runs": self._runs.copy(),
        }
        state["state"] = np.frombuffer(self._state, np.uint8)
        if self._command is not None:
            state["command"] = self._command.copy()
        return state

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it."""
        following, frozen, self._time_s, moving, broken = state["scalars"].tolist()
        self._next, self._frozen, self._moving = int(following), int(frozen), bool(moving)
        self._output = OUTPUT if broken else ""
        self._last_signals[:] = state["signals"]
        self._runs[:] = state["runs"]
        self._state, self._command = state["state"].tobytes(), state.get("command")


def _finite(values: Array) -> bool:
    """Whether all are; the square of a vector says so faster than asking every entry, but for ones beyond 1e19."""
    return math.isfinite(values @ values) or bool(np.isfinite(values).all())


OUTPUT = "the policy's output is not finite"


def _broken_output(record: Step) -> str:
    output = record.output
    commands = all(v is None or bool(np.isfinite(v).all()) for v in (output.chunk, output.samples, output.members))
    # an entry of the hidden state beyond float16 reads as infinite: missing, not broken
    seen = output.hidden is None or not np.isnan(output.hidden).any()
    return "" if commands and seen else OUTPUT


def _past_chunk(record: Step) -> str:
    length = len(record.output.chunk)
    if record.signals is not None or record.cursor < length:
        return ""
    return f"the policy is past the end of its chunk of {length} actions"
