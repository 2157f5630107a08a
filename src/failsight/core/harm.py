"""When a contact, a topple or a shove counts as a collision: one rule for simulators, labels and reports."""

from __future__ import annotations

from dataclasses import dataclass

from failsight.core.types import Event

OBSTACLES = ("wall", "post")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollisionRule:
    """Thresholds of a collision.

    Touching an obstacle counts from 2 N: on the prototype 0.1 to 2 N was one plateau, so 2 N means "touched".
    Hitting a fixture or a bystander counts only when hard, since fingers brush the table in every grasp.
    """

    touch_n: float = 2.0
    """Gripper or held object on an obstacle."""
    hard_n: float = 35.0
    """Gripper on the table, a bin or an object."""
    tilt_deg: float = 25.0
    """Tilt from which an obstacle counts as knocked over."""

    def matches(self, event: Event) -> bool:
        """Whether this event is a collision."""
        if event.kind == "contact":
            return event.value > (self.touch_n if event.other in OBSTACLES else self.hard_n)
        return event.kind == "toppled" and event.value >= self.tilt_deg
