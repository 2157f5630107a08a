"""Rows of a table -> episodes: one row per step or one row per episode, whichever the file holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_success, require_increasing
from failsight.core.types import Array
from failsight.episodes.formats.fields import JOINED, SCALARS, WHOLE, Fields

LEAST_DEPTH = {"signals": 1, "hidden": 2, "state": 2, "action": 2, "chunk": 3, "samples": 4}
"""Dimensions of a value that holds all steps of an episode."""


Column: TypeAlias = Array | list[Any]
"""(N, ...) values of a table, or a list of N."""


class Sheet(NamedTuple):
    """One episode as a file has it: name -> one value, or (T, ...) values."""

    where: str
    values: Mapping[str, Any]
    alone: bool = False
    """It is its file's only episode."""


def sheets_of(where: str, values: Mapping[str, Column], fields: Fields) -> Iterator[Sheet]:
    """The episodes of a table; `values` are its columns, all of the same length.

    A row is an episode where no two rows are of the same one and its values hold several steps; else it is a step.
    Raises EpisodeDataError naming the row whose place in an episode is not clear.
    """
    count = len(next(iter(values.values())))
    groups = _groups(where, values, fields, count)
    if len(groups) == count and not fields["step"] and _holds_steps(values, fields):
        for row in range(count):
            yield Sheet(f"{where}, row {row + 1}", {name: column[row] for name, column in values.items()}, count == 1)
        return
    for key, rows in groups.items():
        place = where if key is None else f"{where}, episode {key[1]}"
        yield Sheet(place, _episode(place, values, fields, np.array(rows)), key is None)


def _groups(
    where: str, values: Mapping[str, Column], fields: Fields, count: int
) -> dict[tuple[Any, Any] | None, list[int]]:
    """Episode -> its rows."""
    name, task = fields.one("episode"), fields.one("task")
    if not name:
        return {None: list(range(count))} if not _holds_steps(values, fields) else {("", i): [i] for i in range(count)}
    groups: dict[tuple[Any, Any] | None, list[int]] = {}
    tasks = _plain(values[task]) if task else [""] * count
    for row, (of, number) in enumerate(zip(tasks, _plain(values[name]), strict=True)):
        if number is None or number != number or number == "" or of is None:
            raise EpisodeDataError(f"{where}, row {row + 1}: {name if of is not None else task} is empty.")
        groups.setdefault((of, number), []).append(row)
    return groups


def _plain(column: Column) -> list[Any]:
    values = column.tolist() if isinstance(column, np.ndarray) else list(column)
    return [value if isinstance(value, str | int | float | bytes | None) else str(value) for value in values]


def _holds_steps(values: Mapping[str, Column], fields: Fields) -> bool:
    """Whether the value of a row is as deep as that of a whole episode."""
    roles = [role for role in (*JOINED, *WHOLE) if fields[role]]
    deep = [
        _depth(values[name][0]) >= LEAST_DEPTH[role] for role in roles for name in fields[role] if len(values[name])
    ]
    return any(deep) and (not fields["signals"] or _depth(values[fields["signals"][0]][0]) >= 1)


def _depth(value: Any) -> int:
    if isinstance(value, list | tuple):
        return 1 + (_depth(value[0]) if len(value) else 0)
    return int(np.ndim(value)) if isinstance(value, np.ndarray) else 0


def _episode(where: str, values: Mapping[str, Column], fields: Fields, rows: Array) -> dict[str, Any]:
    rows = _in_order(where, values, fields, rows)
    result: dict[str, Any] = {}
    for name, column in values.items():
        result[name] = column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]
    for role in SCALARS:
        if name := fields.one(role):
            result[name] = _one_value(where, name, result[name], role)
    return result


def _in_order(where: str, values: Mapping[str, Column], fields: Fields, rows: Array) -> Array:
    name = fields.one("step")
    if not name:
        if len(rows) != rows[-1] - rows[0] + 1:
            raise EpisodeDataError(
                f"{where}: its rows do not stand together; name their order with --map step=NAME, or separate episodes."
            )
        return rows
    column = values[name]
    try:
        steps = np.array([column[row] for row in rows], np.float64)
    except (ValueError, TypeError) as error:
        raise EpisodeDataError(f"{where}: {name} holds something other than numbers.") from error
    order = np.argsort(steps, kind="stable")
    require_increasing(steps[order], where, name)
    return rows[order]


def _one_value(where: str, name: str, column: Column, role: str) -> Any:
    """The value that all steps share; a success may also be told at the last step alone."""
    values = _plain(column)
    if all(value == values[0] for value in values):
        return values[0]
    if role == "success":
        told = [read_success(value, f"{where}: {name}") for value in values]
        if not any(told[:-1]):
            return told[-1]
    raise EpisodeDataError(f"{where}: {name} changes within the episode ({values[0]!r}, then others).")
