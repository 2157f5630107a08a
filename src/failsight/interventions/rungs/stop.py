"""Stopping."""

from __future__ import annotations

from failsight.core.contracts import Context
from failsight.core.types import CONTINUE, Decision, DecisionKind, Verdict


class SafeStop:
    """Stop the episode at the trigger. Not a success: a stopped task is not done."""

    def reset(self) -> None:
        """Nothing to forget."""

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Stop while the trigger is on."""
        if not verdict.trigger:
            return CONTINUE
        return Decision(kind=DecisionKind.STOP, reason=f"stop requested: {verdict.why}")
