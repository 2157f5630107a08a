"""Doing nothing."""

from __future__ import annotations

from failsight.core.contracts import Context
from failsight.core.types import CONTINUE, Decision, Verdict


class Watch:
    """Do nothing, whatever the verdict."""

    def reset(self) -> None:
        """Nothing to forget."""

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Go on."""
        return CONTINUE
