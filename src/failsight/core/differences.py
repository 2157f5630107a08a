"""Where two values of one shape differ, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """One place at which two values differ."""

    place: str
    """Field names from outside in, e.g. `dimensions, gripper, low`; empty: the values as a whole."""
    first: Any
    second: Any


def differences(first: Any, second: Any, place: str = "") -> Iterator[Difference]:
    """Places at which two values differ, innermost fields only.

    Entries of a sequence are named by their `name` where both have the same one, else by their position; sequences of
    other names or another length are shown by what only one of them has, or as a whole when they differ in order only.

    >>> list(differences((1, 2, 3), (1, 5, 3), "state"))
    [Difference(place='state, 1', first=2, second=5)]
    """
    if first == second:
        return
    if is_dataclass(first) and type(first) is type(second):
        compared = [field.name for field in fields(first) if field.compare]
        pairs = [(name, getattr(first, name), getattr(second, name)) for name in compared]
    elif isinstance(first, tuple) and isinstance(second, tuple):
        if _names(first) != _names(second):
            yield Difference(place, *_only(_names(first), _names(second)))
            return
        pairs = [(_name(a, i), a, b) for i, (a, b) in enumerate(zip(first, second, strict=True))]
    else:
        yield Difference(place, first, second)
        return
    for name, one, other in pairs:
        yield from differences(one, other, f"{place}, {name}" if place else name)


def _name(entry: Any, position: int) -> str:
    """A camera is a tuple that begins with its name."""
    named = entry[0] if isinstance(entry, tuple) and entry else getattr(entry, "name", None)
    return named if isinstance(named, str) else str(position)


def _names(entries: Sequence[Any]) -> tuple[str, ...]:
    return tuple(entry if isinstance(entry, str) else _name(entry, i) for i, entry in enumerate(entries))


def _only(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, str]:
    """What only either of them names; all of it when they name the same in another order."""
    if sorted(first) == sorted(second):
        return ", ".join(first), ", ".join(second)
    left = [name for name in first if name not in second]
    right = [name for name in second if name not in first]
    return _listed(left), _listed(right)


def _listed(names: Sequence[str]) -> str:
    return f"also {', '.join(names)}" if names else "nothing more"
