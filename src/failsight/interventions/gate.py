"""The gate: a rung may act only once forks have shown that it helps more than it harms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class GateEntry:
    """What forks showed about one rung."""

    rung: str
    triggers: int
    rescues: int
    """Failed without, succeeded with."""
    harms: int
    """Succeeded without, did not succeed with."""
    type: str = ""
    """The predicted failure type of these forks; empty: all of them together."""

    @property
    def net(self) -> float:
        """Rescues minus harms per trigger; NaN without triggers."""
        return (self.rescues - self.harms) / self.triggers if self.triggers else float("nan")

    @property
    def net_low(self) -> float:
        """One-sided 95 % lower bound of the net benefit.

        The paired difference of each fork is +1, 0 or -1; Hoeffding would be too wide, so the bound is that of a
        normal mean with one pseudo-harm and one pseudo-rescue added (Agresti-Min for paired proportions).
        """
        n = self.triggers + 2
        up, down = (self.rescues + 1) / n, (self.harms + 1) / n
        deviation = np.sqrt(max(up + down - (up - down) ** 2, 0.0) / n)
        return float(up - down - 1.645 * deviation)

    @property
    def open(self) -> bool:
        """Whether the rung may act."""
        return self.triggers > 0 and self.net_low > 0

    def as_dict(self) -> dict[str, Any]:
        """JSON form; `net` is null without triggers."""
        counts = {
            "rung": self.rung,
            "type": self.type,
            "triggers": self.triggers,
            "rescues": self.rescues,
            "harms": self.harms,
        }
        return {**counts, "net": self.net if self.triggers else None, "net_low": self.net_low, "open": self.open}


Gate = Sequence[GateEntry]
"""What forks showed about every rung, type by type and all together."""


def opened(gate: Gate, rung: str, kind: str) -> bool:
    """Whether a rung may act on a failure of this predicted type; empty: none is predicted, and all together count.

    A gate that was never asked type by type judges all of them together.
    """
    typed = any(entry.type for entry in gate)
    return any(e.open for e in gate if e.rung == rung and e.type == (kind if typed else ""))


def gate_entry(rung: str, forks: Iterable[tuple[bool, bool]], kind: str = "") -> GateEntry:
    """From (succeeded without, succeeded with) of every trigger of this predicted type."""
    pairs = list(forks)
    return GateEntry(
        rung=rung,
        type=kind,
        triggers=len(pairs),
        rescues=sum(acted and not alone for alone, acted in pairs),
        harms=sum(alone and not acted for alone, acted in pairs),
    )
