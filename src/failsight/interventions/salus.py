"""A published ladder as a table: what to do at which p_fail and for which failure type, without a gate.

The rows are those of SALUS: p_fail 0.9 and a collision: stop; 0.7 and a drop or a miss: slow down; 0.6 and anything:
try again; more than three retries: call a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from failsight.core.contracts import Context, Intervention
from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import CONTINUE, Decision, DecisionKind, Verdict
from failsight.interventions.fitness import misfit
from failsight.interventions.rungs import Backtrack, Retry, SafeStop, Slow, Takeover


class TableRow(NamedTuple):
    """One line of the table."""

    p_fail: float
    """From here on."""
    types: tuple[str, ...]
    """Of the predicted failure type; empty: any, and also when none is predicted."""
    rung: str


SALUS: tuple[TableRow, ...] = (
    TableRow(0.9, ("collision",), "stop"),
    TableRow(0.7, ("drop", "miss"), "slow"),
    TableRow(0.6, (), "retry"),
)
_RETRIES = 3


class TableLadder:
    """From the first trigger on, the first row that matches p_fail and the predicted type; a retry is seen through."""

    def __init__(self, rows: Sequence[TableRow] = SALUS, retries: int = _RETRIES) -> None:
        """Args: retries: one more calls the person."""
        self._rows, self._retries = tuple(rows), retries
        self._stop, self._slow, self._person = SafeStop(), Slow(dwell_s=0.0), Takeover()
        self._choices: tuple[Intervention, ...] = (Retry(attempts=retries), Backtrack(attempts=retries))
        self._retry: Intervention = self._choices[0]
        self.reset()

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """Going slower must be possible, and one of two ways to go back. Raises SpecMismatchError."""
        self._slow.require_robot(actions, observations)
        problems = [misfit(choice, actions, observations) for choice in self._choices]
        if all(problems):
            raise SpecMismatchError(str(problems[-1]))
        self._retry = self._choices[problems.index(None)]

    def reset(self) -> None:
        """Nothing tried yet."""
        parts: tuple[Intervention, ...] = (self._slow, self._person, *self._choices)
        for part in parts:
            part.reset()
        self._began, self._retrying, self._used, self._called = False, False, 0, False

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """What the table says of this tick."""
        self._began = self._began or verdict.trigger
        if not self._began:
            return CONTINUE
        rung = self._rung(verdict)
        alarm = replace(verdict, trigger=True, why=_why(verdict))
        if rung == "stop":
            return self._stop.propose(alarm, context)
        self._called = self._called or (rung == "retry" and self._used >= self._retries and not self._retrying)
        if self._called:
            return self._person.propose(alarm, context)
        again = self._again(alarm if rung == "retry" else replace(alarm, trigger=False), context)
        if rung == "retry" or again.kind == DecisionKind.BACKTRACK:
            return again
        return self._slow.propose(alarm, context) if rung == "slow" else CONTINUE

    def _again(self, alarm: Verdict, context: Context) -> Decision:
        """What the retry does; it is asked at every tick, for it counts the time between two attempts."""
        decision = self._retry.propose(alarm, context)
        acts = decision.kind == DecisionKind.BACKTRACK
        self._used += acts and not self._retrying
        self._retrying = acts
        return decision

    def _rung(self, verdict: Verdict) -> str:
        risk = verdict.risk
        return next(
            (
                row.rung
                for row in self._rows
                if risk.p_fail >= row.p_fail and (not row.types or risk.likely_type in row.types)
            ),
            "",
        )


def _why(verdict: Verdict) -> str:
    kind = verdict.risk.likely_type or "no type"
    return f"p_fail {verdict.risk.p_fail:.2f}, {kind}"
