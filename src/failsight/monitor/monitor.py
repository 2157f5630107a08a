"""The monitor: signals, predictor and trigger as one object that runs online and offline alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.errors import EpisodeDataError
from failsight.core.types import FAILURE_TYPES, Array, Risk, Step, Task, Verdict
from failsight.monitor.band import Band
from failsight.monitor.probability import ProbabilityMap
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import Trigger, TriggerRule
from failsight.predictors.words import begin


class Bank(Protocol):
    """Where the signals of a step come from."""

    def reset(self) -> None:
        """Forget the episode."""

    def update(self, step: Step) -> Array:
        """(S,) signals of this step."""

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode."""

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it."""


class LoggedSignals:
    """Signals that were computed elsewhere and come with the step."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def reset(self) -> None:
        """No memory."""

    def update(self, step: Step) -> Array:
        """(S,) signals of this step. Raises EpisodeDataError when there are none, or another number of them."""
        if step.signals is None or len(step.signals) != len(self.names):
            found = "none" if step.signals is None else str(len(step.signals))
            raise EpisodeDataError(
                f"Step {step.index} has {found} signals; this monitor reads {', '.join(self.names)}."
            )
        return step.signals

    def save_state(self) -> dict[str, Array]:
        """No memory."""
        return {}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """No memory."""


class RiskMonitor:
    """Judges every control tick; a policy output that is not finite triggers at once."""

    def __init__(
        self,
        predictor: Predictor,
        bank: Bank,
        rule: TriggerRule,
        thresholds: Thresholds,
        probability: ProbabilityMap | None = None,
        band: Band | None = None,
    ) -> None:
        """Args: probability: turns evidence into p_fail; None: the predictor's own p_fail is displayed.
        band: what the threshold is compared with is the evidence's deviation from this band; None: the evidence.
        """
        self.predictor, self._bank, self.rule = predictor, bank, rule
        self.thresholds, self.probability, self.band = thresholds, probability, band
        self.fingerprint = ""
        """Digest of the bundle it comes from."""
        self.learns = True
        """Whether finished episodes calibrate unknown tasks."""
        self._trigger = Trigger(rule, thresholds.pooled.threshold)
        self._level = np.zeros(2)

    def reset(self, task: Task) -> None:
        """Start an episode; its task decides which threshold holds. What the one before looked like is noticed first."""
        self._notice()
        self._bank.reset()
        begin(self.predictor, task.id, task.instruction)
        self.basis = self.thresholds.choose(task.id)
        self._trigger.reset()
        self._trigger.threshold = self.basis.threshold
        self._task, self._step, self._highest, self._broken = task.id, 0, float("-inf"), False
        self._level = np.zeros(2)  # sum and number of judged steps of the episode's first part

    def finish(self, success: bool, *, censored: bool = False) -> None:
        """Tell how the episode ended: successes of an unknown task calibrate it.

        Args: censored: it was stopped, taken over or changed, so how it would have ended is not known.
        """
        self._notice()
        if self.learns and (success or censored):
            self.thresholds.watch(self._task, self._highest, censored=censored)

    def _notice(self) -> None:
        """Once per episode, ended or given up: how high its evidence ran, which needs no label."""
        total, steps = self._level
        if steps and self.learns:
            self.thresholds.notice(self._task, float(total / steps))
        self._level = np.zeros(2)

    def step(self, record: Step) -> Verdict:
        """Judge one tick."""
        if record.replan:
            self._broken = not _finite(record)
        signals = self._bank.update(record)
        risk = self.predictor.update(signals, record.output.hidden)
        if self.probability is not None:
            p_fail = self.probability.p_fail(risk.judged, self._task, self._step)
            risk = replace(risk, p_fail=p_fail, evidence=risk.judged)
        if self.band is not None:
            risk = replace(risk, evidence=self.band.deviation(risk.evidence, self._step))
        provisional = self.thresholds.provisional
        if provisional is not None and self._step < provisional.steps and np.isfinite(risk.judged):
            self._level += (risk.judged, 1)
        self._step += 1
        on = self._trigger.update(self.rule.score(risk), hazard=self._broken)
        self._highest = max(self._highest, self._trigger.statistic)
        threshold = self._trigger.threshold
        return Verdict(
            risk=risk,
            threshold=threshold,
            margin=self._trigger.statistic - threshold,
            trigger=on,
            why=self._why(risk) if on else self.basis.note if self.basis.basis == "uncalibrated" else "",
        )

    def _why(self, risk: Risk) -> str:
        if self._broken:
            return "the policy's output is not finite"
        if np.isfinite(risk.evidence):
            shown = f"p_fail {risk.p_fail:.2f}" if np.isfinite(risk.p_fail) else "no probability on an unknown task"
            limit = "provisional threshold " if self.basis.basis == "provisional" else ""
            parts = ", ".join(
                f"{n.replace('_', ' ')} {v:+.2f}" for n, v in getattr(self.predictor, "shown", {}).items()
            )
            made = f" = {parts}" if parts and self.band is None else ""
            return (
                f"failure likely, evidence {risk.evidence:.2f}{made} >= {limit}{self._trigger.threshold:.2f} ({shown})"
            )
        if self.rule.score(risk) > risk.p_fail:
            return f"collision likely within a second (probability {risk.imminent:.2f})"
        kind = FAILURE_TYPES[int(np.argmax(risk.type))] if np.isfinite(risk.type).all() else "failure"
        return f"{kind} likely, p_fail {risk.p_fail:.2f} >= {self._trigger.threshold:.2f}"

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode."""
        parts = {
            "bank": self._bank.save_state(),
            "predictor": self.predictor.save_state(),
            "trigger": self._trigger.save_state(),
        }
        state = {f"{group}/{name}": array for group, part in parts.items() for name, array in part.items()}
        state["scalars"] = np.array([self._broken, self._step, self._highest, *self._level])
        return state

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it."""

        def part(group: str) -> dict[str, Array]:
            return {n.split("/", 1)[1]: a for n, a in state.items() if n.startswith(f"{group}/")}

        self._bank.load_state(part("bank"))
        self.predictor.load_state(part("predictor"))
        self._trigger.load_state(part("trigger"))
        broken, step, self._highest, *level = state["scalars"].tolist()
        self._broken, self._step, self._level = bool(broken), int(step), np.array(level)


def _finite(record: Step) -> bool:
    output = record.output
    commands = all(v is None or bool(np.isfinite(v).all()) for v in (output.chunk, output.samples))
    # an entry of the hidden state beyond float16 reads as infinite: missing, not broken
    return commands and (output.hidden is None or not np.isnan(output.hidden).any())
