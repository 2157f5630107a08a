"""The monitor: signals, predictor and trigger as one object that runs online and offline alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import FAILURE_TYPES, Array, Risk, Step, Task, Verdict
from failsight.monitor.trigger import Trigger, TriggerRule
from failsight.signals.bank import SignalBank


class RiskMonitor:
    """Judges every control tick; a policy output that is not finite triggers at once."""

    def __init__(
        self,
        predictor: Predictor,
        actions: ActionSpec,
        observations: ObservationSpec,
        rule: TriggerRule,
        threshold: float,
    ) -> None:
        self._predictor, self._bank = predictor, SignalBank(actions, observations)
        self._rule, self._trigger = rule, Trigger(rule, threshold)

    def reset(self, task: Task) -> None:
        """Start an episode."""
        self._bank.reset()
        self._predictor.reset(task.id)
        self._trigger.reset()
        self._broken = False

    def step(self, record: Step) -> Verdict:
        """Judge one tick."""
        if record.replan:
            self._broken = not _finite(record)
        signals = self._bank.update(record)
        risk = self._predictor.update(signals, record.output.hidden)
        on = self._trigger.update(self._rule.score(risk), hazard=self._broken)
        threshold = self._trigger.threshold
        return Verdict(
            risk=risk,
            threshold=threshold,
            margin=self._trigger.statistic - threshold,
            trigger=on,
            why=self._why(risk) if on else "",
        )

    def _why(self, risk: Risk) -> str:
        if self._broken:
            return "the policy's output is not finite"
        if self._rule.score(risk) > risk.p_fail:
            return f"collision likely within a second (probability {risk.imminent:.2f})"
        kind = FAILURE_TYPES[int(np.argmax(risk.type))] if np.isfinite(risk.type).all() else "failure"
        return f"{kind} likely, p_fail {risk.p_fail:.2f} >= {self._trigger.threshold:.2f}"

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode."""
        parts = {
            "bank": self._bank.save_state(),
            "predictor": self._predictor.save_state(),
            "trigger": self._trigger.save_state(),
        }
        state = {f"{group}/{name}": array for group, part in parts.items() for name, array in part.items()}
        state["broken"] = np.array(self._broken)
        return state

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it."""

        def part(group: str) -> dict[str, Array]:
            return {n.split("/", 1)[1]: a for n, a in state.items() if n.startswith(f"{group}/")}

        self._bank.load_state(part("bank"))
        self._predictor.load_state(part("predictor"))
        self._trigger.load_state(part("trigger"))
        self._broken = bool(state["broken"])


def _finite(record: Step) -> bool:
    output = record.output
    values = (output.chunk, output.hidden, output.samples)
    return all(v is None or bool(np.isfinite(v).all()) for v in values)
