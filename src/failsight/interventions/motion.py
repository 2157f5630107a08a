"""Going slower: along the planned path, or under caps. Grippers and torques are sent as they are planned."""

from __future__ import annotations

import numpy as np

from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec
from failsight.core.types import Array, Limits


class Motion:
    """What the commands of one robot are as motions: a value (delta, velocity), or a way to go (absolute target)."""

    def __init__(self, spec: ActionSpec) -> None:
        self._spec = spec
        self.values = np.array([d.kind in ("delta", "velocity") and not d.grips for d in spec.dimensions], bool)
        """(A,) bool: the value is the motion."""
        self.targets = np.array([d.kind == "absolute" and not d.grips for d in spec.dimensions], bool)
        """(A,) bool: the value says where to be."""
        self.names = tuple(name for name, moves in zip(spec.names, self.values | self.targets, strict=True) if moves)
        """Dimensions that can go slower."""

    def slowed(self, planned: Array, last: Array, done: float, share: float) -> Array:
        """(A,) `share` of the planned action (A,), of which `done` was done before: both are parts of 1.

        A value is scaled; to a target it is a part of the rest of the way from the last command (A,), so that doing the
        parts one after the other is doing the whole.
        """
        way = last + (planned - last) * np.float32(share / (1.0 - done))
        return np.where(self.values, planned * np.float32(share), np.where(self.targets, way, planned))

    def limited(self, action: Array, last: Array, before: Array, limits: Limits) -> Array:
        """(A,) the action (A,) cut to caps on velocity and acceleration; `last` and `before` (A,) are the commands before.

        Where the last velocity was above what both caps leave, it slows down by the acceleration's cap.

        Raises SpecMismatchError for caps of another robot.
        """
        self.require_size(limits)
        origin = np.where(self.targets, last, 0.0)
        speed = np.where(self.targets, last - before, last)
        wanted = np.clip(action - origin, -limits.velocity, limits.velocity)
        allowed = origin + np.clip(wanted, speed - limits.acceleration, speed + limits.acceleration)
        return np.where(self.values | self.targets, allowed, action).astype(np.float32)

    def speeds(self, actions: Array) -> Array:
        """(T - 1, A) velocities of the commands (T, A) from the second on, in units of the action per step."""
        return np.where(self.targets, np.diff(actions, axis=0), actions[1:])

    def require_size(self, limits: Limits) -> None:
        """Raises SpecMismatchError for caps of another robot."""
        if len(limits.velocity) != len(self.values):
            raise SpecMismatchError(
                f"the limits have {len(limits.velocity)} entries for the {len(self.values)} action dimensions "
                f"{', '.join(self._spec.names)}"
            )


def require_motion(what: str, spec: ActionSpec) -> Motion:
    """The motions of a robot. Raises SpecMismatchError where it has none that `what` could act on."""
    motion = Motion(spec)
    if not motion.names:
        raise SpecMismatchError(
            f"{what} needs a delta, velocity or absolute action; this robot has "
            f"{', '.join(f'{d.name} ({d.kind})' for d in spec.dimensions) or 'none'}. Leave the rung out."
        )
    return motion
