"""Planning afresh."""

from __future__ import annotations

from failsight.core.contracts import Context
from failsight.core.types import CONTINUE, Decision, DecisionKind, Verdict
from failsight.interventions.rungs.dwell import Dwell


class Replan:
    """A fresh inference each time the trigger goes on; with `execute`, that many actions of a chunk are executed until
    the trigger has been off for `dwell_s` seconds.
    """

    def __init__(self, execute: int = 0, dwell_s: float = 1.0) -> None:
        """Args: execute: 0: as many as the policy does by itself."""
        self._execute, self._dwell = execute, Dwell(dwell_s)
        self.reset()

    def reset(self) -> None:
        """Nothing planned afresh yet."""
        self._dwell.reset()
        self._on, self._lasts = False, False

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Plan afresh when the trigger goes on; the policy's own horizon again when it is over."""
        begins, self._on = verdict.trigger and not self._on, verdict.trigger
        lasted, self._lasts = self._lasts, self._dwell.goes_on(verdict, context)
        if begins:
            return Decision(
                kind=DecisionKind.REPLAN, reason=f"planned afresh: {verdict.why}", execute=self._execute or None
            )
        over = lasted and not self._lasts and self._execute
        return Decision(kind=DecisionKind.CONTINUE, reason="own horizon again", execute=0) if over else CONTINUE
