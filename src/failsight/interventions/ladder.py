"""The ladder: at the trigger, the mildest rung that has earned its place for the predicted failure type.

A rung earns its place by forks on calibration episodes: at the trigger both futures were run, and the lower bound of
its net benefit (rescues minus harms per trigger) is above zero, type by type. Rungs that have not earned it stay shut.
A rung acts until p_fail has been low for a while (back to the policy), or until its time is up with the trigger still
on (the next dearer one). After `recoveries` autonomous recoveries the last open rung acts: the person, where one is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from failsight.core.contracts import Context, Intervention
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.timing import steps_in
from failsight.core.types import CONTINUE, Decision, DecisionKind, Verdict
from failsight.interventions.fitness import needs_fallback, require_robot
from failsight.interventions.gate import Gate, opened
from failsight.interventions.terms import IRREVERSIBLE, RungTerms

_LOW_SHARE = 0.5
_PLAIN = RungTerms()


class Ladder:
    """See the module docstring."""

    def __init__(
        self,
        rungs: Mapping[str, Intervention],
        order: Sequence[str],
        gate: Gate | None,
        recoveries: int = 3,
        patience_s: float = 1.5,
        terms: Mapping[str, RungTerms] | None = None,
        tau_low: float | None = None,
        calm_s: float = 0.5,
    ) -> None:
        """Args: order: mildest first; gate: None: every rung may act, on the word of whoever asks for it; recoveries:
        uses of autonomous rungs per episode; patience_s: time of a rung whose terms name none; tau_low: what the trigger
        judges counts as low up to here (None: half of the threshold); calm_s: for how long it must be low.
        """
        self._rungs, self._gate, self._recoveries, self._patience_s = rungs, gate, recoveries, patience_s
        self._terms, self._tau_low, self._calm_s = terms or {}, tau_low, calm_s
        self._order = sorted(order, key=lambda name: self._terms_of(name).cost)
        self.open = tuple(name for name in self._order if gate is None or any(e.rung == name and e.open for e in gate))
        """Rungs that may act, whatever the type."""
        self.reset()

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """Every rung that may act must be able to. Raises SpecMismatchError."""
        for name in self.open:
            require_robot(self._rungs[name], actions, observations)

    @property
    def needs_fallback(self) -> bool:
        """Whether a rung that may act hands over to another policy."""
        return any(needs_fallback(self._rungs[name]) for name in self.open)

    def reset(self) -> None:
        """The policy is in charge, and nothing was tried."""
        for rung in self._rungs.values():
            rung.reset()
        self._at, self._since, self._calm, self._used = "", 0, 0, 0
        self._last = CONTINUE

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Enter at the trigger; hand back when it is calm; climb when the time is up and the trigger still on."""
        if not self.open:
            return CONTINUE
        before = self._at
        self._since += 1
        self._calm = self._calm + 1 if self._low(verdict) and self._last.action is None else 0
        if self._at and self._over(verdict, context):
            self._at = ""
        elif verdict.trigger and (not self._at or self._late(context)):
            self._climb(verdict, context)
        self._last = self._rungs[self._at].propose(verdict, context) if self._at else CONTINUE
        if before not in ("", self._at) and self._last.execute is None:
            self._last = replace(self._last, execute=0)  # what the rung before changed is over with it
        return self._last

    def _over(self, verdict: Verdict, context: Context) -> bool:
        """Whether the policy may go on: it was low for a while, or the time is up, and the trigger is off.

        A manoeuvre is seen through, and a person hands back alone.
        """
        if verdict.trigger or self._last.kind == DecisionKind.HUMAN:
            return False
        return self._calm >= steps_in(self._calm_s, context.action_spec.rate_hz) or self._late(context)

    def _late(self, context: Context) -> bool:
        limit_s = self._terms_of(self._at).limit_s
        return self._since > steps_in(self._patience_s if limit_s is None else limit_s, context.action_spec.rate_hz)

    def _climb(self, verdict: Verdict, context: Context) -> None:
        """To the next rung for this type; to the person, or the last one, when enough was tried or nothing is in time."""
        names = self._candidates(verdict)
        if not names:
            return
        beyond = names[names.index(self._at) + 1 :] if self._at in names else names
        fits = [name for name in beyond if self._in_time(name, verdict, context)]
        people = [name for name in names if not self._terms_of(name).autonomous]
        chosen = fits[0] if fits and self._used < self._recoveries else (people or names[-1:])[0]
        self._used += self._terms_of(chosen).autonomous
        self._since, self._calm = 0, 0
        if chosen != self._at:
            self._at = chosen
            self._rungs[chosen].reset()

    def _candidates(self, verdict: Verdict) -> list[str]:
        """Rungs that are open for the predicted type, cheapest first."""
        kind = verdict.risk.likely_type
        return [name for name in self._order if self._gate is None or opened(self._gate, name, kind)]

    def _in_time(self, name: str, verdict: Verdict, context: Context) -> bool:
        """Whether a rung can help before a failure that nothing undoes; where that is not known, it can."""
        if verdict.risk.likely_type not in IRREVERSIBLE:
            return True
        takes = steps_in(self._terms_of(name).takes_s, context.action_spec.rate_hz, 0)
        return not takes > verdict.risk.time_to_failure

    def _low(self, verdict: Verdict) -> bool:
        half = verdict.threshold - (1 - _LOW_SHARE) * abs(verdict.threshold)
        return verdict.risk.judged <= (half if self._tau_low is None else self._tau_low)

    def _terms_of(self, name: str) -> RungTerms:
        return self._terms.get(name, _PLAIN)
