"""What no command may exceed, whoever wants it sent: velocity, acceleration, range and workspace, given or from data.

Velocity of a delta or velocity is its value, of an absolute target its change since the last command; acceleration is the
change of that. A workspace holds measured entries (`x_m`) whose motion an action commands (`dx`, `x`): nothing moves
further out. Grippers are never capped, torques by their range alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from failsight.core.errors import EpisodeDataError, SpecMismatchError
from failsight.core.foreign import read_number, read_text
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.textfiles import read_json_object
from failsight.core.types import Array, Limits
from failsight.storage.disk import write_bytes_atomic

_CAPS = ("low", "high", "velocity", "acceleration")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """Limits of one robot, per action dimension in units of the action; inf: none."""

    names: tuple[str, ...]
    """Of the action dimensions."""
    low: Array
    """(A,)"""
    high: Array
    """(A,)"""
    caps: Limits
    workspace: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Measured entry -> lowest and highest value."""

    def as_dict(self) -> dict[str, Any]:
        """JSON form; null: no limit."""
        values = {
            "low": self.low,
            "high": self.high,
            "velocity": self.caps.velocity,
            "acceleration": self.caps.acceleration,
        }
        return {
            "dimensions": {
                name: {key: float(v[i]) if np.isfinite(v[i]) else None for key, v in values.items()}
                for i, name in enumerate(self.names)
            },
            "workspace": {name: list(limits) for name, limits in self.workspace.items()},
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any], where: str = "limits") -> GuardLimits:
        """Inverse of `as_dict`. Raises EpisodeDataError naming the entry."""
        try:
            dimensions, space = dict(data["dimensions"]), dict(data.get("workspace", {}))
            columns = {key: [_cap(d[key], f"{where}, {n}, {key}", key) for n, d in dimensions.items()] for key in _CAPS}
            workspace = {read_text(n, where): _interval(pair, f"{where}, workspace, {n}") for n, pair in space.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise EpisodeDataError(f"{where}: not the limits of a guard ({error}).") from error
        return GuardLimits(
            names=tuple(dimensions),
            low=np.array(columns["low"]),
            high=np.array(columns["high"]),
            caps=Limits(velocity=np.array(columns["velocity"]), acceleration=np.array(columns["acceleration"])),
            workspace=workspace,
        )

    def write(self, path: Path) -> None:
        """Write as JSON, atomically. Raises StorageError."""
        write_bytes_atomic(path, json.dumps(self.as_dict(), indent=1).encode())

    @staticmethod
    def read(path: Path) -> GuardLimits:
        """Raises EpisodeDataError naming file and entry."""
        return GuardLimits.from_dict(read_json_object(path), str(path))

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec | None) -> None:
        """Refuse limits of another robot. Raises SpecMismatchError."""
        if self.names != actions.names:
            raise SpecMismatchError(
                f"The limits are of {', '.join(self.names)}; the actions are {', '.join(actions.names)}."
            )
        state = () if observations is None else observations.state
        for name in self.workspace:
            if name not in state or not any(name == entry for d in actions.dimensions for entry in entries_of(d)):
                raise SpecMismatchError(f"The workspace limits {name}, which no action moves or no state measures.")


class Fence:
    """Applies the limits of one robot."""

    def __init__(self, limits: GuardLimits, actions: ActionSpec, observations: ObservationSpec | None) -> None:
        """Raises SpecMismatchError for limits of another robot."""
        limits.require_robot(actions, observations)
        self._low, self._high = np.maximum(actions.low, limits.low), np.minimum(actions.high, limits.high)
        state = () if observations is None else observations.state
        self._walls = list[tuple[int, int, float, float, float, bool]]()
        for i, dimension in enumerate(actions.dimensions):
            for name in entries_of(dimension):
                if name in limits.workspace:
                    gain = dimension.scale / (actions.rate_hz if dimension.kind == "velocity" else 1.0)
                    goal = dimension.kind == "absolute"
                    self._walls.append((i, state.index(name), *limits.workspace[name], gain, goal))

    def inside(self, action: Array, state: Array | None) -> Array | None:
        """(A,) the action within range and workspace; None: the state (S,) does not say where the robot is."""
        sent = np.clip(action, self._low, self._high)
        for i, entry, low, high, gain, goal in self._walls:
            if goal:
                sent[i] = np.clip(sent[i], low / gain, high / gain)
                continue
            if state is None or not np.isfinite(state[entry]):
                return None
            least, most = sorted(((low - state[entry]) / gain, (high - state[entry]) / gain))
            sent[i] = np.clip(sent[i], min(least, 0.0), max(most, 0.0))
        return np.asarray(sent, np.float32)


def entries_of(dimension: Dimension) -> tuple[str, ...]:
    """Names under which a state measures what a dimension moves: `dx` in m moves `x_m` or `x`, `j0` moves `j0_rad` or `j0`."""
    if dimension.grips or dimension.kind == "torque":
        return ()
    axis = dimension.name.removeprefix("d") if dimension.kind == "delta" else dimension.name.removeprefix("v")
    return (f"{axis}_{dimension.unit}", axis) if axis else ()


def limits_from(
    episodes: Sequence[tuple[Array, Array]], actions: ActionSpec, observations: ObservationSpec, quantile: float
) -> GuardLimits:
    """Limits that `quantile` of all steps stay within, from states (T, S) and commands (T, A) of episodes.

    A dimension that never moves may move by a millionth of its range.
    """
    dimensions = actions.dimensions
    targets = np.array([d.kind == "absolute" for d in dimensions])
    speeds = [np.where(targets[None], np.diff(a, axis=0), a[1:]) for _, a in episodes]
    commands = np.concatenate([a for _, a in episodes])
    tiny = 1e-6 * np.maximum(actions.high - actions.low, 1e-6)
    free = np.array([d.grips or d.kind == "torque" for d in dimensions])
    velocity, acceleration = (
        np.where(free, np.inf, np.maximum(_most(np.abs(values), quantile), tiny))
        for values in (np.concatenate(speeds), np.concatenate([np.diff(s, axis=0) for s in speeds]))
    )
    ranged = np.array([d.kind in ("absolute", "torque") and not d.grips for d in dimensions])
    measured = np.concatenate([s for s, _ in episodes])
    moved = [name for d in dimensions for name in entries_of(d) if name in observations.state]
    space = {name: measured[:, observations.state.index(name)] for name in moved}
    return GuardLimits(
        names=actions.names,
        low=np.where(ranged, -_most(-commands, quantile), -np.inf),
        high=np.where(ranged, _most(commands, quantile), np.inf),
        caps=Limits(velocity=velocity, acceleration=acceleration),
        workspace={n: (float(-_most(-v, quantile)), float(_most(v, quantile))) for n, v in space.items()},
    )


def _most(values: Array, quantile: float) -> Array:
    return np.quantile(values, quantile, axis=0, method="higher")


def _cap(value: Any, where: str, key: str) -> float:
    if value is None:
        return -np.inf if key == "low" else np.inf
    return read_number(value, where, -np.inf if key in ("low", "high") else np.finfo(float).tiny)


def _interval(pair: Sequence[Any], where: str) -> tuple[float, float]:
    low, high = (read_number(value, where) for value in pair)
    if low > high:
        raise EpisodeDataError(f"{where}: from {low:g} to {high:g} leaves no room.")
    return low, high
