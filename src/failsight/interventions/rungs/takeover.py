"""Handing over: to a person, who finishes the task, or to whoever a subclass names."""

from __future__ import annotations

from typing import ClassVar

from failsight.core.contracts import Context
from failsight.core.types import CONTINUE, Decision, DecisionKind, Verdict


class Takeover:
    """Call a person at the trigger; the person finishes the task. Their time is counted."""

    kind: ClassVar[DecisionKind] = DecisionKind.HUMAN
    words: ClassVar[str] = "person called"

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
        return Decision(kind=self.kind, reason=f"{self.words}: {verdict.why}")
