"""What a protector says at a control tick."""

from __future__ import annotations

from dataclasses import dataclass

from failsight.core.types import CONTINUE, SILENT, Array, Decision, Driver, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The action to send, and why it is that one."""

    action: Array | None
    """(A,) float32, in range; None: nothing says how to hold, so send nothing and stop."""
    stop: bool = False
    """Request a stop of the robot: somebody decided it, or something broke. `action` is then a hold."""
    verdict: Verdict = SILENT
    """What the monitor says of this tick."""
    decision: Decision = CONTINUE
    """What was decided about it."""
    driver: Driver = "policy"
    """Whose action it is."""
    instruction: str = ""
    """What the policy is to be told from now on, before it infers afresh; empty: as before."""
    guard: str = ""
    """What the guard did: a bad action replaced, a clip, a latch; empty: nothing."""

    @property
    def why(self) -> str:
        """Everything there is to say about this tick in one line; empty when the policy has its way and all is seen."""
        alone = "no person is there: holding" if self.driver == "hold" and self.decision.kind == "human" else ""
        said = (self.decision.reason, alone, self.guard, "" if self.decision.reason else self.verdict.why)
        blind = self.verdict.blind if self.verdict.blind not in self.verdict.why else ""
        return "; ".join(dict.fromkeys(part for part in (*said, blind) if part))
