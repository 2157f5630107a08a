"""Ranges declared where a value is declared, and refused in one sentence before anything starts.

    trials: Annotated[int, Between(1, 100_000)]

`require_arguments` checks the arguments of a function, `require_fields` the fields of a (nested) dataclass. A tuple is
checked entry by entry. NaN is outside every range.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from failsight.core.errors import FailsightError


@dataclass(frozen=True, slots=True)
class Between:
    """Least and greatest value."""

    low: float
    high: float
    open: bool = False
    """The ends themselves are excluded."""

    def holds(self, value: float) -> bool:
        """Whether `value` lies inside."""
        return self.low < value < self.high if self.open else self.low <= value <= self.high

    def __str__(self) -> str:
        if self.open:
            return f"a number above {self.low:,g} and below {self.high:,g}"
        return f"{self.low:,.10g} to {self.high:,.10g}"


@dataclass(frozen=True, slots=True)
class Distinct:
    """No entry of a tuple occurs twice."""


@dataclass(frozen=True, slots=True)
class NameOrPath:
    """The name of something registered, or a folder; in a settings file it resolves against the file where that exists."""


Number = Annotated[int, Between(0, 2**63 - 1)]
"""Of an episode or a frame."""
Count = Annotated[int, Between(1, 1_000_000)]
Trials = Annotated[int, Between(1, 10_000)]
Share = Annotated[float, Between(0, 1)]
Alpha = Annotated[float, Between(0, 1, open=True)]
Seed = Annotated[int, Between(0, 2**63 - 1)]
Seeds = Annotated[tuple[Seed, ...], Distinct()]
Names = Annotated[tuple[str, ...], Distinct()]
Rate = Annotated[float, Between(0, 1e6)]
"""Steps per second; 0: not known."""
Reference = Annotated[str, NameOrPath()]
Port = Annotated[int, Between(0, 65535)]
Workers = Annotated[int, Between(1, 256)]


def require_arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Refuse arguments outside the ranges that the signature of `function` declares.

    Raises FailsightError naming the flag, the value and the range.
    """
    hints = get_type_hints(function, include_extras=True)
    for name in inspect.signature(function).parameters:
        if name in values:
            _require(f"--{name.replace('_', '-')}", values[name], hints[name])


def require_fields(config: Any, prefix: str = "--") -> None:
    """Refuse fields of a dataclass, and of those in it, outside their ranges. Raises FailsightError."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        _require(f"{prefix}{field.name.replace('_', '-')}", getattr(config, field.name), hints[field.name])


def _require(flag: str, value: Any, hint: Any) -> None:
    if is_dataclass(value) and not isinstance(value, type):
        require_fields(value, "--" if flag == "--config" else f"{flag}.")
        return
    while get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        for note in notes:
            _require_note(flag, value, note)
    if isinstance(value, tuple) and get_args(hint):
        for entry in value:
            _require(flag, entry, get_args(hint)[0])


def _require_note(flag: str, value: Any, note: Any) -> None:
    if isinstance(note, Between) and value is not None and not note.holds(value):
        raise FailsightError(f"{flag} is {value}; it takes {note}.")
    if isinstance(note, Distinct) and len(set(value)) < len(value):
        twice = next(entry for i, entry in enumerate(value) if entry in value[:i])
        raise FailsightError(f"{flag} has {twice} twice; give each once.")
