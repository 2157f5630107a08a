"""The guard: small, synchronous, without learning; it may only tighten.

An action that is not finite, has another shape, or does not exist becomes a hold; two such ticks of any three latch a
stop. Values beyond the spec's range are clipped, and with limits of the robot also what is too fast, too sudden or leads out
of its workspace. Who is told that a source is late (`interventions.watchdog` holds the table) slows, holds or latches. The
latch outlives the episode: only `release` ends it, and says by whom. One guard belongs to one robot: hand the same one to
every loop that drives it.
This is a request to hold or stop, not a safety-rated function: the emergency stop is hardware.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from failsight.core.errors import FailsightError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import Array
from failsight.interventions.limits import Fence, GuardLimits
from failsight.interventions.motion import Motion
from failsight.interventions.watchdog import ON_TIME, TRANSITIONS, GuardMode, Lateness, Sign

_LATCH_AT, _OF = 2, 3
_SLOWED = 0.5
"""Share of a motion while a source is late."""


class GuardState(NamedTuple):
    """What a fork takes along."""

    recent: tuple[bool, ...]
    reason: str
    before: Array | None = None
    """(A,) the command before the last one, where limits need it."""


class Guard:
    """Checks every action before it reaches the simulator or robot."""

    def __init__(
        self,
        spec: ActionSpec,
        limits: GuardLimits | None = None,
        observations: ObservationSpec | None = None,
        token: str = "",
    ) -> None:
        """Args: limits: of the robot, with what its state means; None: the spec's range alone. token: what `release` must
        be told besides a name, where commands come over a network; empty: nothing.

        Raises SpecMismatchError for limits of another robot.
        """
        self._spec, self._low, self._high = spec, spec.low, spec.high
        self._limits, self._token = limits, token
        self._fence = None if limits is None else Fence(limits, spec, observations)
        self._motion = Motion(spec)
        self._recent: deque[bool] = deque(maxlen=_OF)
        self.reason, self.note, self.mode = "", "", GuardMode.MOVING
        """`mode`: what was done at the last tick."""
        self.reset()

    @property
    def latched(self) -> bool:
        """Whether nothing moves any more until somebody releases it; `reason` says why."""
        return bool(self.reason)

    def reset(self) -> None:
        """A new episode; the latch stays as it is."""
        self._recent.clear()
        self._late = ON_TIME
        self._before: Array | None = None
        self.note = ""
        """What was done at this tick: a bad action replaced, a clip, a latch; empty: nothing."""

    def latch(self, reason: str) -> None:
        """Stop for good; the first reason is kept."""
        self._told(Sign.BROKEN)
        if not self.latched:
            self.reason = reason or "no reason given"
            self.tell(f"latched: {self.reason}")

    def release(self, by: str, token: str = "") -> None:
        """Let go of the latch, in the name of a person (or of a simulator that was reset).

        Raises FailsightError for a wrong token; then nothing has changed.
        """
        if self._token and not hmac.compare_digest(token.encode(), self._token.encode()):
            raise FailsightError(f"{by} gave a wrong token; the robot stays latched ({self.reason}).")
        self._recent.clear()
        self.reason, self.note = "", f"released by {by}"
        self._told(Sign.RELEASED)

    def take_note(self) -> str:
        """`note`, which is then empty again."""
        note, self.note = self.note, ""
        return note

    def late(self, lateness: Lateness) -> None:
        """Who is late at this tick; it holds until the next time this is said."""
        self._late = lateness

    def finite(self, action: Array | None, last: Array) -> Array:
        """(A,) the action, or a hold from `last` (A,) when it is not finite, of another shape or None.

        For whoever looks at a planned action; it counts only when it is to be sent: see `check`.
        """
        return self._spec.hold(last) if action is None or self._fault(action) else action

    def check(
        self, action: Array | None, last: Array, missing: str = "there is no action", state: Array | None = None
    ) -> Array:
        """The action to send in place of what somebody wants sent: finite, (A,), within range and limits, in time.

        `last` (A,) is the command before, `state` (S,) what was measured. Latches when two of the last three were bad:
        not finite, of another shape, or None (`missing` says why), and when a source is dead.
        """
        fault = missing if action is None else self._fault(action)
        self._recent.append(bool(fault))
        before, self._before = self._before, last if self._limits is not None else None
        if self.latched:
            return self._spec.hold(last)
        if action is None or fault:
            return self._held(fault, last)
        sent = np.clip(action, self._low, self._high).astype(np.float32)
        if (sent != np.asarray(action, np.float32)).any():
            self.tell(f"clipped: {', '.join(self._changed(action, sent))}")
        if self._limits is not None:
            sent = self._limited(sent, last, last if before is None else before, state)
        if self._late.why:
            return self._tightened(sent, last)
        self._told(Sign.ON_TIME)
        return sent

    def _held(self, fault: str, last: Array) -> Array:
        self.tell(f"held: {fault}")
        again = sum(self._recent) >= _LATCH_AT
        self._told(Sign.BAD_AGAIN if again else Sign.BAD)
        if again:
            self.latch(f"{fault}, on {sum(self._recent)} of the last {len(self._recent)} ticks")
        return self._spec.hold(last)

    def _limited(self, action: Array, last: Array, before: Array, state: Array | None) -> Array:
        """(A,) within the caps and the workspace of the robot."""
        assert self._limits is not None
        assert self._fence is not None
        slower = self._motion.limited(action, last, before, self._limits.caps)
        inside = self._fence.inside(slower, state)
        if inside is None:
            self.tell("held: the state does not say where in its workspace the robot is")
            return self._spec.hold(last)
        if (inside != action).any():
            self.tell(f"limited: {', '.join(self._changed(action, inside))}")
        return inside

    def _tightened(self, action: Array, last: Array) -> Array:
        """(A,) what a late source leaves of an action."""
        sign, why = self._late
        mode = self._told(sign)
        if mode == GuardMode.SLOWED:
            self.tell(f"half speed: {why}")
            return self._motion.slowed(action, last, 0.0, _SLOWED).astype(np.float32)
        self.tell(f"held: {why}")
        if mode == GuardMode.LATCHED:
            self.latch(why)
        return self._spec.hold(last)

    def _told(self, sign: Sign) -> GuardMode:
        self.mode = TRANSITIONS[self.mode, sign]
        return self.mode

    def _fault(self, action: Array) -> str:
        if np.shape(action) != self._low.shape:
            return f"the action has shape {np.shape(action)} instead of {self._low.shape}"
        return "" if np.isfinite(action).all() else "the action is not finite"

    def _changed(self, wanted: Array, sent: Array) -> Sequence[str]:
        """Which entries of (A,) were changed, from what to what."""
        pairs = zip(self._spec.names, np.asarray(wanted, np.float32), sent, strict=True)
        return [f"{name} {a:.4g} to {b:.4g}" for name, a, b in pairs if a != b]

    def tell(self, what: str) -> None:
        """Add to the note of this tick."""
        self.note = f"{self.note}; {what}" if self.note else what

    def save_state(self) -> GuardState:
        """Memory of the running episode."""
        return GuardState(tuple(self._recent), self.reason, self._before)

    def load_state(self, state: GuardState) -> None:
        """Restore it."""
        self._recent = deque(state.recent, maxlen=_OF)
        self.reason, self.note, self._before = state.reason, "", state.before
        self.mode = GuardMode.LATCHED if state.reason else GuardMode.MOVING


class Onlooker(Guard):
    """A guard of who only watches: it says what it would have done, and changes nothing."""

    def check(
        self, action: Array | None, last: Array, missing: str = "there is no action", state: Array | None = None
    ) -> Array:
        """What somebody wants sent, (A,) float32 as it is; a hold where there is no action at all."""
        latched, mode, noted, self.note = self.reason, self.mode, self.note, ""
        held = super().check(action, last, missing, state)
        undone = self.take_note()
        self.reason, self.mode, self.note = latched, mode, noted
        if undone:
            self.tell(f"not done, as nothing acts: {undone}")
        return held if action is None or np.shape(action) != held.shape else np.asarray(action, np.float32)
