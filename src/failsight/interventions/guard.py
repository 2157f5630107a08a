"""The guard: small, synchronous, without learning; it may only tighten.

An action that is not finite, has another shape, or does not exist becomes a hold; two such ticks of any three latch a
stop. Values beyond the spec's range are clipped. The latch outlives the episode: only `release` ends it, and says by
whom. One guard belongs to one robot: hand the same one to every loop that drives it.
This is a request to hold or stop, not a safety-rated function: the emergency stop is hardware.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from failsight.core.specs import ActionSpec
from failsight.core.types import Array

_LATCH_AT, _OF = 2, 3


class GuardState(NamedTuple):
    """What a fork takes along."""

    recent: tuple[bool, ...]
    reason: str


class Guard:
    """Checks every action before it reaches the simulator or robot."""

    def __init__(self, spec: ActionSpec) -> None:
        self._spec, self._low, self._high = spec, spec.low, spec.high
        self._recent: deque[bool] = deque(maxlen=_OF)
        self.reason, self.note = "", ""
        self.reset()

    @property
    def latched(self) -> bool:
        """Whether nothing moves any more until somebody releases it; `reason` says why."""
        return bool(self.reason)

    def reset(self) -> None:
        """A new episode; the latch stays as it is."""
        self._recent.clear()
        self.note = ""
        """What was done at this tick: a bad action replaced, a clip, a latch; empty: nothing."""

    def latch(self, reason: str) -> None:
        """Stop for good; the first reason is kept."""
        if not self.latched:
            self.reason = reason or "no reason given"
            self.tell(f"latched: {self.reason}")

    def release(self, by: str) -> None:
        """Let go of the latch, in the name of a person (or of a simulator that was reset)."""
        self._recent.clear()
        self.reason, self.note = "", f"released by {by}"

    def take_note(self) -> str:
        """`note`, which is then empty again."""
        note, self.note = self.note, ""
        return note

    def finite(self, action: Array | None, last: Array) -> Array:
        """(A,) the action, or a hold from `last` (A,) when it is not finite, of another shape or None.

        For whoever looks at a planned action; it counts only when it is to be sent: see `check`.
        """
        return self._spec.hold(last) if action is None or self._fault(action) else action

    def check(self, action: Array | None, last: Array, missing: str = "there is no action") -> Array:
        """The action to send in place of what somebody wants sent: finite, (A,) and within range.

        Latches when two of the last three were bad: not finite, of another shape, or None (`missing` says why).
        """
        fault = missing if action is None else self._fault(action)
        self._recent.append(bool(fault))
        if action is None or fault:
            self.tell(f"held: {fault}")
            if sum(self._recent) >= _LATCH_AT:
                self.latch(f"{fault}, on {sum(self._recent)} of the last {len(self._recent)} ticks")
            return self._spec.hold(last)
        sent = np.clip(action, self._low, self._high).astype(np.float32)
        if (sent != np.asarray(action, np.float32)).any():
            self.tell(f"clipped: {', '.join(self._outside(action))}")
        return sent

    def _fault(self, action: Array) -> str:
        if np.shape(action) != self._low.shape:
            return f"the action has shape {np.shape(action)} instead of {self._low.shape}"
        return "" if np.isfinite(action).all() else "the action is not finite"

    def _outside(self, action: Array) -> Sequence[str]:
        return [
            n for n, v, a, b in zip(self._spec.names, action, self._low, self._high, strict=True) if not a <= v <= b
        ]

    def tell(self, what: str) -> None:
        """Add to the note of this tick."""
        self.note = f"{self.note}; {what}" if self.note else what

    def save_state(self) -> GuardState:
        """Memory of the running episode."""
        return GuardState(tuple(self._recent), self.reason)

    def load_state(self, state: GuardState) -> None:
        """Restore it."""
        self._recent = deque(state.recent, maxlen=_OF)
        self.reason, self.note = state.reason, ""


class Onlooker(Guard):
    """A guard of who only watches: it says what it would have done, and changes nothing."""

    def check(self, action: Array | None, last: Array, missing: str = "there is no action") -> Array:
        """What somebody wants sent, (A,) float32 as it is; a hold where there is no action at all."""
        latched, noted, self.note = self.reason, self.note, ""
        held = super().check(action, last, missing)
        undone = self.take_note()
        self.reason, self.note = latched, noted
        if undone:
            self.tell(f"not done, as nothing acts: {undone}")
        return held if action is None or np.shape(action) != held.shape else np.asarray(action, np.float32)
