"""Action and observation specs from outside: another process's metadata or a file, every field read, none cast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_count, read_number, read_text, require_distinct
from failsight.core.specs import ActionSpec, Dimension, Kind, ObservationSpec

DIMENSIONS, STATES, CAMERAS, PIXELS = 256, 4096, 16, 4096
"""The most of each that is believed."""
_NAME = 200


def read_action_spec(value: Any, where: str) -> ActionSpec:
    """Inverse of `ActionSpec.as_dict`. Raises EpisodeDataError naming the field."""
    data = _fields(value, where, {"dimensions", "frame", "rate_hz", "gripper_closed_sign"})
    rows = _list(data["dimensions"], f"{where}.dimensions", DIMENSIONS)
    dimensions = tuple(_dimension(row, f"{where}.dimensions[{i}]") for i, row in enumerate(rows))
    require_distinct([d.name for d in dimensions], where, "the dimension")
    sign = read_count(data["gripper_closed_sign"], f"{where}.gripper_closed_sign", -1, 1)
    return ActionSpec(
        dimensions=dimensions,
        frame=_word(data["frame"], f"{where}.frame"),
        rate_hz=read_number(data["rate_hz"], f"{where}.rate_hz", 0, 1e5),
        gripper_closed_sign=sign,
    )


def read_observation_spec(value: Any, where: str) -> ObservationSpec:
    """Inverse of `ObservationSpec.as_dict`. Raises EpisodeDataError naming the field."""
    data = _fields(value, where, {"state", "cameras"})
    state = [read_text(name, f"{where}.state", _NAME) for name in _list(data["state"], f"{where}.state", STATES)]
    rows = _list(data["cameras"], f"{where}.cameras", CAMERAS)
    cameras = [_camera(row, f"{where}.cameras[{i}]") for i, row in enumerate(rows)]
    require_distinct(state, where, "the state entry")
    require_distinct([name for name, _, _ in cameras], where, "the camera")
    return ObservationSpec(state=tuple(state), cameras=tuple(cameras))


def _dimension(value: Any, where: str) -> Dimension:
    data = _fields(value, where, {"name", "kind", "unit", "low", "high", "scale", "hold"})
    kinds: tuple[Kind, ...] = get_args(Kind)
    kind = next((kind for kind in kinds if kind == data["kind"]), None)
    if kind is None:
        raise EpisodeDataError(f"{where}.kind: expected one of {', '.join(kinds)}, found {repr(data['kind'])[:40]}.")
    low, high = (read_number(data[name], f"{where}.{name}") for name in ("low", "high"))
    if low > high:
        raise EpisodeDataError(f"{where}: low {low:g} is above high {high:g}.")
    return Dimension(
        name=read_text(data["name"], f"{where}.name", _NAME),
        kind=kind,
        unit=_word(data["unit"], f"{where}.unit"),
        low=low,
        high=high,
        scale=read_number(data["scale"], f"{where}.scale"),
        hold=None if data["hold"] is None else read_number(data["hold"], f"{where}.hold"),
    )


def _camera(value: Any, where: str) -> tuple[str, int, int]:
    row = _list(value, where, 3)
    if len(row) != 3:
        raise EpisodeDataError(f"{where}: expected name, height and width, found {len(row)} entries.")
    height, width = (read_count(size, where, 1, PIXELS) for size in row[1:])
    return read_text(row[0], where, _NAME), height, width


def _fields(value: Any, where: str, names: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != names:
        found = (
            sorted(str(name)[:40] for name in list(value)[:12]) if isinstance(value, Mapping) else type(value).__name__
        )
        raise EpisodeDataError(f"{where}: expected {', '.join(sorted(names))}, found {found}.")
    return value


def _list(value: Any, where: str, most: int) -> list[Any]:
    if not isinstance(value, list | tuple) or len(value) > most:
        found = f"{len(value)} entries" if isinstance(value, list | tuple) else type(value).__name__
        raise EpisodeDataError(f"{where}: expected a list of at most {most}, found {found}.")
    return list(value)


def _word(value: Any, where: str) -> str:
    """Text that may be empty."""
    return "" if value == "" else read_text(value, where, _NAME)
