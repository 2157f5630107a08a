"""The ladder: at the trigger, the mildest rung that has earned its place for the predicted failure type.

A rung earns its place by forks on calibration episodes: at the trigger both futures were run, and the lower bound of
its net benefit (rescues minus harms per trigger) is above zero. Rungs that have not earned it stay shut. A person is
the last rung that acts; without one the ladder only watches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from failsight.core.contracts import Context, Intervention
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.timing import steps_in
from failsight.core.types import CONTINUE, Decision, Verdict
from failsight.interventions.fitness import require_robot
from failsight.interventions.gate import GateEntry


class Ladder:
    """Chooses among rungs by their gate entries; at most `recoveries` autonomous attempts, then the last open rung."""

    def __init__(
        self,
        rungs: Mapping[str, Intervention],
        order: Sequence[str],
        gate: Mapping[str, GateEntry] | None,
        recoveries: int = 3,
        patience_s: float = 1.5,
    ) -> None:
        """Args: order: mildest first; gate: None: every rung may act, on the word of whoever asks for it; recoveries,
        patience_s: attempts of one rung, and time between escalations.
        """
        self._rungs, self._recoveries, self._patience_s = rungs, recoveries, patience_s
        self.open = tuple(name for name in order if gate is None or (name in gate and gate[name].open))
        self.reset()

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """Every rung that may act must be able to. Raises SpecMismatchError."""
        for name in self.open:
            require_robot(self._rungs[name], actions, observations)

    def reset(self) -> None:
        """Back to the lowest rung."""
        for rung in self._rungs.values():
            rung.reset()
        self._level, self._since, self._used = -1, 0, 0

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Climb one rung at the trigger, and another when the trigger is still on after `patience_s` seconds."""
        if not self.open:
            return CONTINUE
        self._since += 1
        patience = steps_in(self._patience_s, context.action_spec.rate_hz)
        if verdict.trigger and (self._level < 0 or self._since > patience):
            last = len(self.open) - 1
            self._used += 1
            self._level = last if self._used > self._recoveries else min(self._level + 1, last)
            self._since = 0
        if self._level < 0:
            return CONTINUE
        return self._rungs[self.open[self._level]].propose(verdict, context)
