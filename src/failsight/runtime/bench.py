"""What a worker process owns: a simulator, a policy and, when given, who watches, who acts, who takes over and who stands in."""

from __future__ import annotations

from dataclasses import dataclass

from failsight.core.contracts import Intervention, Monitor, Observer, Operator, Policy, Sim
from failsight.episodes.verdicts import Judge
from failsight.runtime.loop import Loop


@dataclass(frozen=True, slots=True)
class Bench:
    """The parts of a loop, built once per process."""

    sim: Sim
    policy: Policy
    monitor: Monitor | None = None
    intervention: Intervention | None = None
    operator: Operator | None = None
    fallback: Policy | None = None

    def loop(self, *observers: Observer) -> Loop:
        """A loop over all of it, whose ticks `observers` are told. Raises SpecMismatchError when the parts do not fit together."""
        return Loop(
            self.sim,
            self.policy,
            monitor=self.monitor,
            intervention=self.intervention,
            operator=self.operator,
            fallback=self.fallback,
            observers=observers,
        )

    @property
    def judge(self) -> Judge:
        """Who judges here, and whom."""
        return Judge(bundle=getattr(self.monitor, "fingerprint", ""), policy=self.policy.fingerprint)
