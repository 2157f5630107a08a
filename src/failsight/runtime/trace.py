"""What a loop remembers of an episode."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from failsight.core.types import Array, DecisionKind, Event, Outcome, Risk, Tick
from failsight.episodes.verdicts import VerdictRow, row_of


@dataclass(slots=True, kw_only=True)
class Trace:
    """What happened in an episode, tick by tick; the observer that every loop has."""

    name: ClassVar[str] = "trace"
    wants_images: ClassVar[bool] = False

    risks: list[Risk] = field(default_factory=list)
    kinds: list[DecisionKind] = field(default_factory=list)
    rows: list[VerdictRow] = field(default_factory=list)
    """What was judged, decided and guarded, one row per tick, and one per release between them."""
    path: list[Array] = field(default_factory=list)
    """(S,) state before every action that was sent."""
    sent: list[Array] = field(default_factory=list)
    """(A,) every action that was sent."""
    trigger_step: int | None = None
    human_steps: int = 0
    events: list[Event] = field(default_factory=list)
    causes: list[tuple[int, str]] = field(default_factory=list)
    """Step and name of what an intervention found to be unusual."""
    outcome: Outcome | None = None
    error: str = ""
    """Who broke and how, of an errored episode."""

    def observe(self, tick: Tick) -> None:
        """Take in one tick."""
        if tick.verdict is not None:
            self.risks.append(tick.verdict.risk)
            if tick.verdict.trigger and self.trigger_step is None:
                self.trigger_step = tick.index
        if tick.decision is not None:
            self.kinds.append(tick.decision.kind)
            if tick.decision.cause:
                self.causes.append((tick.index, tick.decision.cause))
        if tick.step is not None and tick.action is not None:
            self.path.append(tick.step.state)
            self.sent.append(tick.action)
        self.human_steps += tick.driver == "operator"
        self.events += tick.events
        if (row := row_of(tick)) is not None:
            self.rows.append(row)

    def forget(self, most: int) -> None:
        """Drop the older half of what was remembered of each tick once there are more than `most` of them."""
        for memory in (self.risks, self.kinds, self.rows, self.path, self.sent, self.events):
            if len(memory) > most:
                del memory[: len(memory) - most // 2]

    def copy(self) -> Trace:
        """An independent copy, for a fork."""
        return replace(
            self,
            risks=list(self.risks),
            kinds=list(self.kinds),
            rows=list(self.rows),
            path=list(self.path),
            sent=list(self.sent),
            events=list(self.events),
            causes=list(self.causes),
        )

    @property
    def left_alone(self) -> bool:
        """Whether the policy had its way throughout: nobody stopped it, took over or changed what it did."""
        untouched = all(kind == DecisionKind.CONTINUE for kind in self.kinds)
        return untouched and self.outcome in (Outcome.SUCCESS, Outcome.FAILURE)
