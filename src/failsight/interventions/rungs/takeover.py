"""Calling a person."""

from __future__ import annotations

from failsight.core.contracts import Context
from failsight.core.types import CONTINUE, Decision, DecisionKind, Verdict


class Takeover:
    """Call a person at the trigger; the person finishes the task. Their time is counted."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The policy is in charge."""
        self._taken = False

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Hand over at the trigger and stay handed over."""
        self._taken = self._taken or verdict.trigger
        if not self._taken:
            return CONTINUE
        return Decision(kind=DecisionKind.HUMAN, reason=f"person called: {verdict.why}")
