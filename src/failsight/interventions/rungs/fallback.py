"""Handing over to another policy."""

from __future__ import annotations

from failsight.core.contracts import Context
from failsight.core.types import CONTINUE, Decision, DecisionKind, Verdict


class Fallback:
    """Another policy acts from the trigger on. A sibling of the first one shares its blind spots (see LOG.md)."""

    needs_fallback = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The first policy is in charge."""
        self._taken = False

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Hand over at the trigger and stay handed over."""
        self._taken = self._taken or verdict.trigger
        if not self._taken:
            return CONTINUE
        return Decision(kind=DecisionKind.FALLBACK, reason=f"another policy: {verdict.why}")
