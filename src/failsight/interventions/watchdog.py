"""Who is late, and what that means: the table of the guard's states, and the clock that leads through it.

| late, in multiples of the source's own expected interval | sign | the guard |
|---|---|---|
| less than 2 | on time | lets through what is in range and within limits |
| 2 | late | half of every motion |
| 5 | very late | holds |
| 20 | dead | latches: a stop that only `release` lifts |

Sources: `observation` and `monitor` are expected every tick, `policy` once per executed chunk from the tick at which it is due, a
`camera` that is watched gives another picture within five ticks of motion; its clock stands while the robot does.
A bad action is a hold, two of any three ticks are a latch, and so is whatever breaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class GuardMode(StrEnum):
    """What the guard is doing."""

    MOVING = "moving"
    SLOWED = "slowed"
    HOLDING = "holding"
    LATCHED = "latched"


class Sign(StrEnum):
    """What the guard is told at a tick."""

    ON_TIME = "on time"
    LATE = "late"
    VERY_LATE = "very late"
    DEAD = "dead"
    BAD = "bad action"
    BAD_AGAIN = "bad action on two of three ticks"
    BROKEN = "broken"
    RELEASED = "released"


LATE_AT = ((20.0, Sign.DEAD), (5.0, Sign.VERY_LATE), (2.0, Sign.LATE))
"""From how many expected intervals on a source is late, very late, dead."""
CAMERA_TICKS = 5
"""Ticks of motion within which a camera that works gives another picture."""
_MEANS = {
    Sign.ON_TIME: GuardMode.MOVING,
    Sign.LATE: GuardMode.SLOWED,
    Sign.VERY_LATE: GuardMode.HOLDING,
    Sign.DEAD: GuardMode.LATCHED,
    Sign.BAD: GuardMode.HOLDING,
    Sign.BAD_AGAIN: GuardMode.LATCHED,
    Sign.BROKEN: GuardMode.LATCHED,
    Sign.RELEASED: GuardMode.MOVING,
}
TRANSITIONS: Mapping[tuple[GuardMode, Sign], GuardMode] = {
    (mode, sign): mode if mode == GuardMode.LATCHED and sign != Sign.RELEASED else after
    for mode in GuardMode
    for sign, after in _MEANS.items()
}
"""From mode and sign to the next mode: every mode but the latch forgets, and nothing but a release lifts the latch."""


class Lateness(NamedTuple):
    """The latest of all sources at one tick."""

    sign: Sign
    why: str
    """Who is how late; empty when nobody is."""


ON_TIME = Lateness(Sign.ON_TIME, "")


class Watchdog:
    """Knows when every source was last heard, and how long that is in its own intervals. In seconds of any clock."""

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self.start(0.0)

    def start(self, now_s: float) -> None:
        """A new episode: everybody is on time."""
        self._seen_s, self._took_s, self._chunk_s = now_s, 0.0, self._tick_s
        self._due_s: float | None = None
        self._pictures = dict[str, tuple[float, float]]()

    def observed(self, measured_s: float) -> None:
        """A fresh observation, and when it was measured."""
        self._seen_s = measured_s

    def pictured(self, camera: str, changed: bool, counts: bool, now_s: float) -> None:
        """Whether a camera's picture is another one than before, and whether it should have been: who stands still sees
        the same, so that a hold for a frozen camera lasts until its picture changes.
        """
        age_s, last_s = self._pictures.get(camera, (0.0, now_s))
        self._pictures[camera] = (0.0 if changed else age_s + (now_s - last_s) * counts), now_s

    def judged(self, took_s: float) -> None:
        """How long the monitor took for this tick."""
        self._took_s = took_s

    def due(self, due: bool, now_s: float) -> None:
        """Whether the policy still owes an answer at this tick."""
        if not due:
            self._due_s = None
        elif self._due_s is None:
            self._due_s = now_s

    def answered(self, actions: int) -> None:
        """The policy answered: the next answer is expected after so many actions."""
        self._due_s = None
        self._chunk_s = max(actions, 1) * self._tick_s

    def worst(self, now_s: float) -> Lateness:
        """Who is latest, in its own intervals."""
        silent = 0.0 if self._due_s is None else now_s - self._due_s + self._chunk_s
        sources = (
            ("observation", now_s - self._seen_s, self._tick_s),
            ("monitor", self._took_s, self._tick_s),
            ("policy", silent, self._chunk_s),
            *((f"camera {name}", age_s, CAMERA_TICKS * self._tick_s) for name, (age_s, _) in self._pictures.items()),
        )
        name, age, expected = max(sources, key=lambda source: source[1] / source[2])
        for least, sign in LATE_AT:
            if age / expected >= least - 1e-9:
                return Lateness(sign, f"{name} {age:.3f} s, {age / expected:.1f} times the {expected:.3f} s expected")
        return ON_TIME
