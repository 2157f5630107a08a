"""What the numbers of an action or a state vector mean; producer and consumer are compared before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from typing import Any, Literal, get_args

import numpy as np

from failsight.core.differences import differences
from failsight.core.errors import EpisodeDataError, SpecMismatchError
from failsight.core.foreign import read_count, read_number, read_text, require_distinct
from failsight.core.types import Array

Kind = Literal["delta", "absolute", "velocity", "torque", "binary"]


class Access(IntEnum):
    """How far into a policy one must see to compute something; each level includes the ones before it."""

    ACTIONS = 1
    PROPRIOCEPTION = 2
    SAMPLES = 3
    """Several drawn chunks, token probabilities, or the inner steps of a denoiser."""
    HIDDEN = 4


_OPEN_GAP_M = 0.04
"""Fingers farther apart than this are open."""
_ACCESS = ", ".join(access.name.lower() for access in Access)


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
        """Inverse of `as_dict`. Raises EpisodeDataError naming what cannot be."""
        name, access = read_text(data["name"], "signals, name"), str(data["access"]).upper()
        if access not in Access.__members__:
            raise EpisodeDataError(f"signals, {name}: access is {data['access']!r}; write {_ACCESS}.")
        return SignalColumn(name=name, unit=_word(data["unit"], f"signals, {name}, unit"), access=Access[access])


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
    """The value that keeps the robot where it is; None: nothing for a delta or velocity, else keep the last value."""

    @property
    def still(self) -> float | None:
        """The value that keeps the robot where it is; None: the last value does."""
        return 0.0 if self.hold is None and self.kind in ("delta", "velocity") else self.hold

    @property
    def grips(self) -> bool:
        """Whether it opens and closes something; whoever goes slower leaves it as it is."""
        return self.kind == "binary" or "gripper" in self.name.lower()

    @staticmethod
    def from_dict(data: Mapping[str, Any], where: str = "action") -> Dimension:
        """From JSON; `where` names the place. Raises EpisodeDataError naming the key."""
        name = read_text(data["name"], f"{where}, name")
        place, hold, kind = f"{where}, {name}", data.get("hold"), data["kind"]
        if kind not in get_args(Kind):
            raise EpisodeDataError(f"{place}: kind is {kind!r}; write one of {', '.join(get_args(Kind))}.")
        low = read_number(data.get("low", -1.0), f"{place}, low")
        return Dimension(
            name=name,
            kind=kind,
            unit=_word(data["unit"], f"{place}, unit"),
            low=low,
            high=read_number(data.get("high", 1.0), f"{place}, high", low),
            scale=read_number(data.get("scale", 1.0), f"{place}, scale"),
            hold=None if hold is None else read_number(hold, f"{place}, hold"),
        )


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
        """(A,) bool: dimensions whose value is a motion (no absolute target, nothing that only opens and closes)."""
        return np.array([d.kind in ("delta", "velocity") for d in self.dimensions])

    def hold(self, last: Array) -> Array:
        """The action that holds still after `last` (A,): what keeps each dimension still, else its last value."""
        return np.array([last[i] if d.still is None else d.still for i, d in enumerate(self.dimensions)], np.float32)

    def first(self, state: Array, names: Sequence[str]) -> Array:
        """(A,) the hold before any action was sent, from the measured state (S,) and the names of its entries.

        A dimension that needs its last value takes the state entry of its name, with or without its unit (`j0`,
        `j0_rad`); a gripper keeps the side its measured `gripper_open01` or fingers (`finger_..._m`) are on.

        Raises SpecMismatchError naming a dimension that has neither: whatever can move a robot has no default;
        EpisodeDataError when what was measured is not finite.
        """
        first = np.array([self._first(d, state, list(names)) for d in self.dimensions], np.float32)
        if not np.isfinite(first).all():
            raise EpisodeDataError("the state measured at the start is not finite; nothing says how to hold still")
        return first

    def _first(self, dimension: Dimension, state: Array, names: list[str]) -> float:
        if dimension.still is not None:
            return dimension.still
        opened = _opened(state, names) if dimension.name == "gripper" else None
        if opened is not None:
            return dimension.low if opened == (self.gripper_closed_sign > 0) else dimension.high
        for name in (dimension.name, f"{dimension.name}_{dimension.unit}"):
            if dimension.kind == "absolute" and name in names:
                return float(state[names.index(name)])
        raise SpecMismatchError(
            f"Nothing says how to hold the action dimension {dimension.name!r} ({dimension.kind}) still: it has no hold "
            f"value and the state ({', '.join(names)}) has no entry of its name. Give Dimension(hold=...) or name the "
            "measured entry alike."
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ActionSpec:
        """Inverse of `as_dict`. Raises EpisodeDataError naming what is not finite, unknown or twice there."""
        dimensions = tuple(Dimension.from_dict(d) for d in data["dimensions"])
        require_distinct((d.name for d in dimensions), "action", "dimension")
        sign = read_number(data["gripper_closed_sign"], "action, gripper_closed_sign", -1, 1)
        if sign not in (-1, 1):
            raise EpisodeDataError(f"action, gripper_closed_sign: expected -1 or 1, found {sign:g}.")
        return ActionSpec(
            dimensions=dimensions,
            frame=_word(data["frame"], "action, frame"),
            rate_hz=read_number(data["rate_hz"], "action, rate_hz", 0.0),
            gripper_closed_sign=int(sign),
        )


def _opened(state: Array, names: list[str]) -> bool | None:
    """Whether the measured gripper is open; None when nothing measures it."""
    if "gripper_open01" in names:
        return float(state[names.index("gripper_open01")]) > 0.5
    fingers = [i for i, name in enumerate(names) if name.startswith("finger") and name.endswith("_m")]
    return float(np.abs(state[fingers]).sum()) > _OPEN_GAP_M if fingers else None


def _camera(name: Any, height: Any, width: Any) -> tuple[str, int, int]:
    place = f"observation, camera {name!r}"
    return read_text(name, place), read_count(height, place, 1, 2**16), read_count(width, place, 1, 2**16)


def _word(value: Any, where: str) -> str:
    """Text that may be empty (an unknown unit or frame)."""
    return read_text(value, where) if value != "" else ""


def no_actions(rate_hz: float) -> ActionSpec:
    """The spec of a log that holds signals but no actions."""
    return ActionSpec(dimensions=(), frame="", rate_hz=rate_hz, gripper_closed_sign=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationSpec:
    """Names of the state entries and of the cameras with their pixel size (height, width)."""

    state: tuple[str, ...]
    cameras: tuple[tuple[str, int, int], ...]
    look: tuple[tuple[str, float], ...] = field(default=(), compare=False)
    """Where the robot stands in no camera's way: state entry and value. Of a simulator alone; it is not stored."""

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
        """Inverse of `as_dict`. Raises EpisodeDataError naming what cannot be."""
        state = tuple(read_text(name, "observation, state") for name in data["state"])
        cameras = tuple(_camera(*camera) for camera in data["cameras"])
        require_distinct(state, "observation", "state entry")
        require_distinct((name for name, _, _ in cameras), "observation", "camera")
        return ObservationSpec(state=state, cameras=cameras)


def with_look(spec: ObservationSpec, look: Mapping[str, float], where: str) -> ObservationSpec:
    """The spec with a look pose. Raises EpisodeDataError for a value that is no number, SpecMismatchError for an entry
    that the state lacks.
    """
    pose = [(name, read_number(value, f"{where}, look, {name}")) for name, value in look.items()]
    for name, _ in pose:
        spec.index(name)
    return replace(spec, look=tuple(pose))


def require_equal(what: str, **sides: Any) -> None:
    """Stop before the first step when two sides, given by name, mean different things.

    Raises SpecMismatchError that shows the fields that differ, and no other.

    >>> require_equal("Rates", policy=20, simulator=10)
    Traceback (most recent call last):
    failsight.core.errors.SpecMismatchError: Rates differ. policy: 20; simulator: 10.
    """
    (one, first), (other, second) = sides.items()
    found = [f"{f'{place} - ' if place else ''}{one}: {a}; {other}: {b}" for place, a, b in differences(first, second)]
    if found:
        raise SpecMismatchError(f"{what} differ. {'. '.join(found)}.")
