"""What the numbers of an action or a state vector mean; producer and consumer are compared before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, Literal

import numpy as np

from failsight.core.errors import SpecMismatchError
from failsight.core.types import Array

Kind = Literal["delta", "absolute", "velocity", "torque", "binary"]


class Access(IntEnum):
    """How far into a policy one must see to compute something; each level includes the ones before it."""

    ACTIONS = 1
    PROPRIOCEPTION = 2
    SAMPLES = 3
    """Several drawn chunks, token probabilities, or the inner steps of a denoiser."""
    HIDDEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalColumn:
    """One per-step number: its name, unit, and the access it needs."""

    name: str
    unit: str
    access: Access

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"name": self.name, "unit": self.unit, "access": self.access.name.lower()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> SignalColumn:
        """Inverse of `as_dict`."""
        return SignalColumn(name=data["name"], unit=data["unit"], access=Access[data["access"].upper()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One entry of an action vector."""

    name: str
    kind: Kind
    unit: str
    """Physical unit of `scale`."""
    low: float = -1.0
    high: float = 1.0
    scale: float = 1.0
    """Physical amount of one unit of action (metres or radians per step for a delta)."""
    hold: float | None = None
    """The value that keeps the robot where it is; None: keep the last value (a gripper)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec:
    """An action space with meaning: order, kinds, units, ranges, hold values, gripper sign and rate."""

    dimensions: tuple[Dimension, ...]
    frame: str
    rate_hz: float
    """Steps per second; 0 when a log does not say."""
    gripper_closed_sign: int
    """+1: a positive gripper action closes."""

    @property
    def names(self) -> tuple[str, ...]:
        """Dimension names in order."""
        return tuple(d.name for d in self.dimensions)

    @property
    def low(self) -> Array:
        """(A,) lower limits."""
        return np.array([d.low for d in self.dimensions], np.float32)

    @property
    def high(self) -> Array:
        """(A,) upper limits."""
        return np.array([d.high for d in self.dimensions], np.float32)

    @property
    def scalable(self) -> Array:
        """(A,) bool: dimensions whose size may be scaled to go slower (never a gripper or an absolute target)."""
        return np.array([d.kind in ("delta", "velocity") for d in self.dimensions])

    def hold(self, last: Array) -> Array:
        """The action that holds still after `last` (A,): hold values where declared, else the last value."""
        return np.array(
            [last[i] if d.hold is None else d.hold for i, d in enumerate(self.dimensions)], dtype=np.float32
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ActionSpec:
        """Inverse of `as_dict`."""
        dimensions = tuple(Dimension(**d) for d in data["dimensions"])
        return ActionSpec(**{**data, "dimensions": dimensions})


def no_actions(rate_hz: float) -> ActionSpec:
    """The spec of a log that holds signals but no actions."""
    return ActionSpec(dimensions=(), frame="", rate_hz=rate_hz, gripper_closed_sign=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationSpec:
    """Names of the state entries and of the cameras with their pixel size (height, width)."""

    state: tuple[str, ...]
    cameras: tuple[tuple[str, int, int], ...]

    def index(self, name: str) -> int:
        """Position of a state entry."""
        if name not in self.state:
            raise SpecMismatchError(f"The state has no entry {name!r}; it has {', '.join(self.state)}.")
        return self.state.index(name)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"state": list(self.state), "cameras": [list(c) for c in self.cameras]}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ObservationSpec:
        """Inverse of `as_dict`."""
        return ObservationSpec(state=tuple(data["state"]), cameras=tuple((c[0], c[1], c[2]) for c in data["cameras"]))


def require_equal(name: str, producer: Any, consumer: Any) -> None:
    """Stop before the first step when two sides mean different things; prints both sides.

    Raises SpecMismatchError.
    """
    if producer != consumer:
        raise SpecMismatchError(f"{name} differ. Producer: {producer}. Consumer: {consumer}.")
