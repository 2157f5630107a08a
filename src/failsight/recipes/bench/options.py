"""Which part of a comparison to run: detectors, protocols, and how many splits of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from failsight.core.errors import FailsightError, UnknownNameError

ALWAYS = "folds"
"""The protocol behind calibration, false alarms and paired differences."""


class Fit(Protocol):
    """One fit of a comparison."""

    @property
    def detector(self) -> str:
        """Name of the row."""

    @property
    def protocol(self) -> str:
        """Name of the protocol."""

    @property
    def number(self) -> int:
        """Number of the split."""


F = TypeVar("F", bound=Fit)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """Empty: everything."""

    detectors: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    splits: int | None = None
    """At most that many splits of every protocol."""

    def check(self, rows: Iterable[str], protocols: Iterable[str]) -> None:
        """Raises UnknownNameError with the nearest names, FailsightError for an impossible number of splits."""
        for kind, names, known in (("detector", self.detectors, rows), ("protocol", self.protocols, protocols)):
            available = list(known)
            for name in names:
                if name not in available:
                    raise UnknownNameError(kind, name, available)
        if self.splits is not None and self.splits < 1:
            raise FailsightError(f"--splits is {self.splits}; at least one split is judged.")

    def choose(self, fits: Iterable[F], beside: Iterable[str]) -> list[F]:
        """The fits that were asked for; `beside` are rows that every comparison has (the default and its controls)."""
        rows = {*self.detectors, *beside}
        return [
            fit
            for fit in fits
            if (not self.detectors or fit.detector in rows)
            and (not self.protocols or fit.protocol in (*self.protocols, ALWAYS))
            and (self.splits is None or fit.number < self.splits)
        ]

    def as_arguments(self) -> str:
        """As typed on the command line."""
        parts = [f"--{name} {' '.join(values)}" for name, values in self._lists().items() if values]
        if self.splits is not None:
            parts.append(f"--splits {self.splits}")
        return "".join(f" {part}" for part in parts)

    def _lists(self) -> Mapping[str, tuple[str, ...]]:
        return {"detectors": self.detectors, "protocols": self.protocols}


def with_parts(rows: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Those rows, and the rows that they are made of."""
    wanted = list(names)
    return [*wanted, *(part for name in wanted for part in getattr(rows[name], "parts", {}).values())]
