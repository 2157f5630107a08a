"""What a gripper feels of the thing it holds: whether it slips away, or the fingers open by themselves.

Both are read from how far the fingers are open while they are told to close: the level at which they came to rest on
something, and how far they leave it, inwards (it slipped) or outwards (they opened).
"""

from __future__ import annotations

from collections import deque

from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import Array

OPENING, GRIPPER = "gripper_open01", "gripper"
_REST_TICKS, _REST = 4, 0.03
"""Ticks of hardly any motion (of the whole opening) after which the fingers rest on something."""
_EMPTY, _OPEN = 0.1, 0.9
"""Openings beyond which nothing is held."""


class Grip:
    """Follows one episode, step by step."""

    def __init__(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        self._opening = observations.state.index(OPENING)
        self._gripper, self._closed = actions.names.index(GRIPPER), actions.gripper_closed_sign
        self.reset()

    @staticmethod
    def suits(actions: ActionSpec, observations: ObservationSpec) -> bool:
        """Whether a robot has a gripper that closes by sign and says how far it is open."""
        binary = any(d.name == GRIPPER and d.kind == "binary" for d in actions.dimensions)
        return binary and OPENING in observations.state

    def reset(self) -> None:
        """Nothing is held."""
        self._recent: deque[float] = deque(maxlen=_REST_TICKS)
        self._level: float | None = None

    def feel(self, state: Array, command: Array) -> tuple[float, float]:
        """How far, of the whole opening, the fingers have gone in and out since they rested on something.

        After `command` (A,) they are as in `state` (S,); (0, 0) while nothing is held.
        """
        opening = float(state[self._opening])
        if float(command[self._gripper]) * self._closed <= 0:
            self.reset()
            return 0.0, 0.0
        self._recent.append(opening)
        if self._level is None:
            still = len(self._recent) == _REST_TICKS and max(self._recent) - min(self._recent) < _REST
            self._level = opening if still and _EMPTY < opening < _OPEN else None
            return 0.0, 0.0
        return max(0.0, self._level - opening), max(0.0, opening - self._level)

    def let_go(self) -> None:
        """It is lost: wait for the fingers to rest on something again."""
        self._level = None
        self._recent.clear()
