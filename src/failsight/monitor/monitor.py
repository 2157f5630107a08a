"""The monitor: signals, predictor and trigger as one object that runs online and offline alike."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from failsight.causes.familiar import Familiar
from failsight.core.contracts import Predictor
from failsight.core.errors import EpisodeDataError
from failsight.core.types import FAILURE_TYPES, Array, Risk, Step, Task, Verdict
from failsight.monitor.band import Band
from failsight.monitor.made_for import MadeFor
from failsight.monitor.probability import ProbabilityMap
from failsight.monitor.senses import Senses
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import Trigger, TriggerRule
from failsight.predictors.words import begin

UNKNOWN = Risk(p_fail=float("nan"))
"""Said where there is nothing to judge from."""
_EPISODES = itertools.count(1)
"""Numbers of the episodes judged in this process; a fork carries the number of the episode it comes from."""


class Bank(Protocol):
    """Where the signals of a step come from."""

    names: tuple[str, ...]

    def reset(self) -> None:
        """Forget the episode."""

    def update(self, step: Step) -> Array:
        """(S,) signals of this step."""

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode: named arrays of any shape, `()` for one number."""

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Go on from what `save_state` gave: the same names, each of its shape, `()` or (S,)."""


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
    """Judges every control tick, or says why it is blind.

    A policy output that is not finite triggers at once; any other blindness after `rule.blind_steps` ticks in a row.
    """

    def __init__(
        self,
        predictor: Predictor,
        bank: Bank,
        rule: TriggerRule,
        thresholds: Thresholds,
        probability: ProbabilityMap | None = None,
        band: Band | None = None,
        senses: Senses | None = None,
    ) -> None:
        """Args: probability: turns evidence into p_fail; None: the predictor's own p_fail is displayed.
        band: what the threshold is compared with is the evidence's deviation from this band; None: the evidence.
        senses: what must be seen to judge; None: nothing is known about commands and usual signals.
        """
        self._senses = senses or Senses(bank.names)
        self.predictor, self._bank, self.rule = predictor, bank, rule
        self.thresholds, self.probability, self.band = thresholds, probability, band
        self.fingerprint = ""
        """Digest of the bundle it comes from."""
        self.made_for: MadeFor | None = None
        """Whom the bundle was made for; None: it comes from no bundle."""
        self.familiar: Familiar | None = None
        """What the policy is familiar with, for diagnoses of causes; None: not known."""
        self.learns = True
        """Whether finished episodes calibrate unknown tasks."""
        self._trigger = Trigger(rule, thresholds.pooled.threshold)
        self._level, self._episode = np.zeros(2), 0
        self._noticed: set[int] = set()
        self._finished: set[int] = set()

    def reset(self, task: Task) -> None:
        """Start an episode; its task decides which threshold holds. What the one before looked like is noticed first."""
        self._notice()
        self._bank.reset()
        begin(self.predictor, task.id, task.instruction)
        self.basis = self.thresholds.choose(task.id)
        self._trigger.reset()
        self._trigger.threshold = self.basis.threshold
        self._senses.reset()
        self._task, self._step, self._highest, self._blind = task.id, 0, float("-inf"), 0
        self._episode = next(_EPISODES)
        self._level = np.zeros(2)  # sum and number of judged steps of the episode's first part

    def finish(self, success: bool, *, censored: bool = False) -> None:
        """Tell how the episode ended: successes of an unknown task calibrate it, each episode once with all its forks.

        Args: censored: it was stopped, taken over or changed, so how it would have ended is not known.
        """
        self._notice()
        if self.learns and (success or censored) and self._episode not in self._finished:
            self._finished.add(self._episode)
            self.thresholds.watch(self._task, self._highest, censored=censored)

    def _notice(self) -> None:
        """Once per episode with all its forks, ended or given up: how high its evidence ran, which needs no label."""
        total, steps = self._level
        if steps and self.learns and self._episode not in self._noticed:
            self._noticed.add(self._episode)
            self.thresholds.notice(self._task, float(total / steps))
        self._level = np.zeros(2)

    def step(self, record: Step) -> Verdict:
        """Judge one tick. A step of the past changes nothing but the count of blind ticks."""
        past = self._senses.order(record)
        if past:
            self._blind += 1
            on = self._trigger.on or self._blind >= self.rule.blind_steps
            self._trigger.on = on
            return self._verdict(UNKNOWN, on, past)
        signals = self._bank.update(record)
        missing, doubtful = self._senses.look(record, signals)
        risk = self._risk(signals, record)
        if not missing:
            self._weigh(risk.judged)
        self._step = record.index + 1
        score = self.rule.score(risk)
        blind = (
            missing or ("" if math.isfinite(score) else "the predictor gives no score") or doubtful or self._unlimited()
        )
        self._blind = self._blind + 1 if blind else 0
        hazard = bool(self._senses.output) or self._blind >= self.rule.blind_steps
        on = self._trigger.update(float("nan") if missing else score, hazard=hazard)
        self._highest = max(self._highest, self._trigger.statistic)
        if missing:
            risk = replace(UNKNOWN, dimension=np.full(len(risk.dimension), np.nan))
        return self._verdict(risk, on, blind)

    def _risk(self, signals: Array, record: Step) -> Risk:
        risk = self.predictor.update(signals, record.output.hidden)
        if self.probability is not None:
            p_fail = self.probability.p_fail(risk.judged, self._task, record.index)
            risk = replace(risk, p_fail=p_fail, evidence=risk.judged)
        if self.band is not None:
            risk = replace(risk, evidence=self.band.deviation(risk.evidence, record.index))
        return risk

    def _weigh(self, evidence: float) -> None:
        """Take the evidence into the episode's level, in its first part."""
        provisional = self.thresholds.provisional
        if provisional is not None and self._step < provisional.steps and math.isfinite(evidence):
            self._level += (evidence, 1)

    def _unlimited(self) -> str:
        """Why there is no threshold to compare with."""
        threshold = self._trigger.threshold
        if math.isfinite(threshold):
            return ""
        return self.basis.note or f"the threshold is {threshold}"

    def _verdict(self, risk: Risk, on: bool, blind: str) -> Verdict:
        threshold = self._trigger.threshold
        return Verdict(
            risk=risk,
            threshold=threshold,
            margin=self._trigger.statistic - threshold,
            trigger=on,
            why=self._why(risk, blind) if on else blind,
            blind=blind,
        )

    def _why(self, risk: Risk, blind: str) -> str:
        if self._senses.output:
            return self._senses.output
        if self._blind >= self.rule.blind_steps:
            return f"blind for {self._blind} ticks: {blind}"
        limit = f"{self._trigger.threshold:.2f}"
        if math.isfinite(risk.evidence):
            shown = f"p_fail {risk.p_fail:.2f}" if np.isfinite(risk.p_fail) else "no probability on an unknown task"
            if self.basis.basis == "provisional":
                limit = f"provisional threshold {limit}"
            return f"failure likely, evidence {risk.evidence:.2f}{self._terms()} {self._against(risk, limit)} ({shown})"
        if self.rule.score(risk) > risk.p_fail:
            score = self.rule.score(risk)
            return (
                f"collision likely within a second (probability {risk.imminent:.2f}), score {score:.2f} "
                f"{self._against(risk, limit)}"
            )
        kind = FAILURE_TYPES[int(np.argmax(risk.type))] if np.isfinite(risk.type).all() else "failure"
        return f"{kind} likely, p_fail {risk.p_fail:.2f} {self._against(risk, limit)}"

    def _terms(self) -> str:
        """What the evidence is made of, where the predictor says so."""
        parts = ", ".join(f"{n.replace('_', ' ')} {v:+.2f}" for n, v in getattr(self.predictor, "shown", {}).items())
        return f" = {parts}" if parts and self.band is None else ""

    def _against(self, risk: Risk, limit: str) -> str:
        """How this tick's score stands to the threshold; the alarm may be on though the score is below it by now."""
        if self.rule.score(risk) >= self._trigger.threshold:
            return f">= {limit}"
        if self._trigger.statistic >= self._trigger.threshold:
            return f"by now, on {self.rule.needed} of the last {self.rule.window} ticks >= {limit}"
        return f"by now, the alarm stays until {self.rule.release_steps} ticks in a row are low enough (it began at {limit})"

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode: that of every part under `<part>/...`, and `scalars` (6,)."""
        parts = {
            "bank": self._bank.save_state(),
            "predictor": self.predictor.save_state(),
            "trigger": self._trigger.save_state(),
            "senses": self._senses.save_state(),
        }
        state = {f"{group}/{name}": array for group, part in parts.items() for name, array in part.items()}
        state["scalars"] = np.array([self._blind, self._step, self._highest, self._episode, *self._level])
        return state

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it."""

        def part(group: str) -> dict[str, Array]:
            return {n.split("/", 1)[1]: a for n, a in state.items() if n.startswith(f"{group}/")}

        self._bank.load_state(part("bank"))
        self.predictor.load_state(part("predictor"))
        self._trigger.load_state(part("trigger"))
        self._senses.load_state(part("senses"))
        blind, step, self._highest, episode, *level = state["scalars"].tolist()
        self._blind, self._step, self._episode, self._level = int(blind), int(step), int(episode), np.array(level)
