"""Steps of a foreign log -> named columns: by name, never by position, and never zero for what is not there.

Nested objects and vectors become columns named by their path (`state.gripper_qpos.0`). A log has every name that any
step of any episode has; where a step lacks one, the value is NaN, which means missing everywhere in failsight. NaN,
infinity, null and what float32 cannot hold are missing too, and counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_number, read_text, require_increasing
from failsight.core.types import Array

TIME = "t"
"""Key of a step that is its time and no signal."""
COLUMN_LIMIT = 1024
"""Signals of a log."""
EPISODE_VALUES = 2**24
"""Values of an episode."""
_NAME = 200
_OPEN = frozenset({"physics_info"})
"""Objects whose own name adds nothing to the names inside."""
_DEPTH = 8
_PLAIN = "a number"
_FORMS = {dict: "an object"}
_POSITION, _GRIPPER = "state.end_effector_position_absolute", "state.gripper_qpos"
_LARGEST = float(np.finfo(np.float32).max)


class StepTable(NamedTuple):
    """The signals of one episode of T steps."""

    names: tuple[str, ...]
    """In order of appearance."""
    values: Array
    """(T, len(names)) float32, NaN where missing."""


class StepReader:
    """Reads the steps of every episode of a log, and remembers what must be the same in all of them."""

    def __init__(self) -> None:
        self.lost: Counter[str] = Counter()
        """Signal -> values that were there but are not finite numbers in float32."""
        self.uneven = 0
        """Episodes whose step times are not equally spaced."""
        self._forms: dict[str, str] = {}

    def read(self, steps: Any, where: str) -> StepTable:
        """Raises EpisodeDataError naming step and key."""
        if not isinstance(steps, list) or not steps:
            raise EpisodeDataError(f"{where}: steps must be a list of at least one object.")
        flat = [self._flatten(step, f"{where} steps[{i}]") for i, step in enumerate(steps)]
        self._check_times(flat, where)
        names = tuple(dict.fromkeys(name for step in flat for name in step if name != TIME))
        if len(names) * len(flat) > EPISODE_VALUES:
            raise EpisodeDataError(
                f"{where} has {len(names)} signals at {len(flat)} steps; at most {EPISODE_VALUES} values of an episode "
                "are read."
            )
        values = np.array([[step.get(name, math.nan) for name in names] for step in flat], np.float64)
        columns = dict(zip(names, values.T, strict=True))
        return _table(_in_release_terms(columns), len(flat))

    def _check_times(self, flat: Sequence[Mapping[str, float]], where: str) -> None:
        timed = [step[TIME] for step in flat if TIME in step]
        if not timed:
            return
        if len(timed) < len(flat):
            raise EpisodeDataError(f"{where}: {len(flat) - len(timed)} of {len(flat)} steps have no {TIME}.")
        require_increasing(np.array(timed), where, "step time t")
        gaps = np.diff(timed)
        self.uneven += len(gaps) > 0 and not np.allclose(gaps, gaps[0], rtol=0.1)

    def _flatten(self, step: Any, where: str) -> dict[str, float]:
        if not isinstance(step, dict):
            raise EpisodeDataError(f"{where}: expected an object, found a {type(step).__name__}.")
        result: dict[str, float] = {}
        for name, value in step.items():
            plain = type(value) in (float, int) and self._forms.get(name) == _PLAIN and name not in result
            if plain and -_LARGEST <= value <= _LARGEST:
                result[name] = value
            else:
                self._place(result, name, value, where, 0)
        return result

    def _place(self, result: dict[str, float], name: str, value: Any, where: str, depth: int) -> None:
        if depth > _DEPTH:
            raise EpisodeDataError(f"{where}: {name[:60]} is nested too deeply to be a signal.")
        if value is None:
            self.lost[name] += 1
            return
        self._check_form(name, value, where)
        if isinstance(value, dict):
            prefix = "" if name in _OPEN else f"{name}."
            for key, part in value.items():
                self._place(result, prefix + key, part, where, depth + 1)
        elif isinstance(value, list):
            for i, part in enumerate(value):
                self._place(result, f"{name}.{i}", part, where, depth + 1)
        elif name in result:
            raise EpisodeDataError(f"{where}: two values are called {name}.")
        else:
            result[name] = self._number(name, value, where)

    def _check_form(self, name: str, value: Any, where: str) -> None:
        form = f"a list of {len(value)}" if isinstance(value, list) else _FORMS.get(type(value), _PLAIN)
        if name not in self._forms:
            if len(self._forms) >= COLUMN_LIMIT:
                raise EpisodeDataError(f"{where} has more signals than the {COLUMN_LIMIT} that a log may have.")
            read_text(name, f"{where}: name of a signal", _NAME)
        before = self._forms.setdefault(name, form)
        if form != before:
            raise EpisodeDataError(f"{where}: {name} is {form}; in an earlier step it is {before}.")

    def _number(self, name: str, value: Any, where: str) -> float:
        if isinstance(value, bool):
            return float(value)
        if isinstance(value, int | float) and not -_LARGEST <= value <= _LARGEST:
            self.lost[name] += 1
            return math.nan
        return read_number(value, f"{where}.{name}")


def _in_release_terms(columns: dict[str, Array]) -> dict[str, Array]:
    """GR00T's position and finger vectors as the columns that the other logs of ActProbe's release have.

    eef_z is the height, eef_z_vel the size of its change since the step before, eef_speed_3d the length of the
    position's change, gripper_qpos_mean the mean of both fingers, gripper_qpos_vel the size of its change. The same
    relations hold to the last digit between the columns of those logs. A first step has no change: NaN (they write 0).
    The vectors give way to them: where in its world a robot stands says which kitchen it is in, not how it fares.
    """
    position, fingers = (_vector(columns, name, size) for name, size in ((_POSITION, 3), (_GRIPPER, 2)))
    derived: dict[str, Array] = {}
    if position is not None:
        change = _change(position)
        derived |= {"eef_z": position[:, 2], "eef_z_vel": np.abs(change[:, 2])}
        derived["eef_speed_3d"] = np.linalg.norm(change, axis=1)
    if fingers is not None:
        mean = fingers.mean(axis=1)
        derived |= {"gripper_qpos_mean": mean, "gripper_qpos_vel": np.abs(_change(mean))}
    if derived.keys() & columns.keys():
        return columns
    gone = [_POSITION] * (position is not None) + [_GRIPPER] * (fingers is not None)
    kept = {name: column for name, column in columns.items() if name.rpartition(".")[0] not in gone}
    return kept | derived


def _table(columns: Mapping[str, Array], steps: int) -> StepTable:
    values = np.array(list(columns.values()), np.float64).reshape(len(columns), steps).T
    return StepTable(tuple(columns), np.ascontiguousarray(values, np.float32))


def _vector(columns: Mapping[str, Array], name: str, size: int) -> Array | None:
    """(T, size), or None when the log has no such vector."""
    parts = [f"{name}.{i}" for i in range(size)]
    if not all(part in columns for part in parts) or f"{name}.{size}" in columns:
        return None
    return np.stack([columns[part] for part in parts], axis=1)


def _change(values: Array) -> Array:
    """Difference to the step before, NaN at the first."""
    result = np.full_like(values, np.nan)
    result[1:] = np.diff(values, axis=0)
    return result
