"""What a loop remembers of an episode, and what a fork starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from failsight.core.types import Array, DecisionKind, Event, Outcome, Risk, Step, Verdict
from failsight.episodes.verdicts import VerdictRow


@dataclass(slots=True, kw_only=True)
class Trace:
    """What happened in an episode, tick by tick."""

    risks: list[Risk] = field(default_factory=list)
    kinds: list[DecisionKind] = field(default_factory=list)
    rows: list[VerdictRow] = field(default_factory=list)
    """What was judged, decided and guarded, one row per tick, and one per latch or release between them."""
    trigger_step: int | None = None
    human_steps: int = 0
    events: list[Event] = field(default_factory=list)
    outcome: Outcome | None = None
    error: str = ""
    """Who broke and how, of an errored episode."""

    def copy(self) -> Trace:
        """An independent copy, for a fork."""
        return replace(
            self, risks=list(self.risks), kinds=list(self.kinds), rows=list(self.rows), events=list(self.events)
        )

    @property
    def left_alone(self) -> bool:
        """Whether the policy had its way throughout: nobody stopped it, took over or changed what it did."""
        untouched = all(kind == DecisionKind.CONTINUE for kind in self.kinds)
        return untouched and self.outcome in (Outcome.SUCCESS, Outcome.FAILURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A loop between the halves of a tick."""

    sim: bytes
    policy: bytes
    monitor: Mapping[str, Array]
    trace: Trace
    values: tuple[Any, ...]
    pending: tuple[Step, Verdict]
