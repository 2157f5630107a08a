"""From risk to alarm: K of the last N ticks above the threshold, hysteresis on release."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from failsight.core.foreign import read_count, read_number
from failsight.core.timing import REFERENCE_HZ, steps_in
from failsight.core.types import Array, Risk

_LONGEST = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRule:
    """On when the alarm score is >= threshold on `needed` of the last `window` ticks; off after `release_steps` ticks at or below
    `release_ratio` * threshold (mirrored for a threshold below 0).
    """

    needed: int = 3
    window: int = 5
    release_steps: int = 8
    release_ratio: float = 0.8
    imminent_gain: float = 0.0
    """How much an imminent collision weighs against p_fail in the alarm score; 0 switches that channel off."""
    blind_steps: int = 10
    """Ticks in a row at which the monitor could not judge, after which that is a trigger itself."""

    def __post_init__(self) -> None:
        """Raises EpisodeDataError on a rule that could never, or always, or at random fire."""
        read_count(self.window, "trigger, window", 1, _LONGEST)
        read_count(self.needed, "trigger, needed", 1, self.window)
        read_count(self.release_steps, "trigger, release_steps", 1, _LONGEST)
        read_count(self.blind_steps, "trigger, blind_steps", 1, _LONGEST)
        read_number(self.release_ratio, "trigger, release_ratio", 0.0, 1.0)
        read_number(self.imminent_gain, "trigger, imminent_gain", 0.0)

    @staticmethod
    def strict(steps: int) -> TriggerRule:
        """On after `steps` ticks in a row at or above the threshold, off after as many in a row at or below the release:
        one tick in between starts the count again. Raises EpisodeDataError for less than one.
        """
        return TriggerRule(needed=steps, window=steps, release_steps=steps)

    def at(self, rate_hz: float) -> TriggerRule:
        """The rule whose ticks, meant at 20 Hz, last as long at another rate; itself where the rate is not known.

        >>> TriggerRule().at(80.0).window
        20
        """
        tick_s = 1 / REFERENCE_HZ
        window = steps_in(self.window * tick_s, rate_hz)
        return replace(
            self,
            window=window,
            needed=min(window, steps_in(self.needed * tick_s, rate_hz)),
            release_steps=steps_in(self.release_steps * tick_s, rate_hz),
            blind_steps=steps_in(self.blind_steps * tick_s, rate_hz, min(2, self.blind_steps)),
        )

    def score(self, risk: Risk) -> float:
        """Alarm score: the evidence where a predictor keeps it apart; else the larger of p_fail and the weighted chance
        of a collision within a second. NaN when unknown.

        A collision a second away may leave p_fail middling, yet there is no time to wait for more evidence.
        """
        if math.isfinite(risk.evidence):
            return risk.evidence
        if self.imminent_gain and math.isfinite(risk.imminent):
            return max(risk.p_fail, self.imminent_gain * risk.imminent)
        return risk.p_fail


class Trigger:
    """Streaming trigger. `statistic` is the `needed`-th largest score of the window: at or above the threshold exactly
    when K of the last N ticks are.
    """

    def __init__(self, rule: TriggerRule, threshold: float) -> None:
        self._rule, self.threshold = rule, threshold
        self._recent = [-math.inf] * rule.window
        self.reset()

    def reset(self) -> None:
        """Silent."""
        self._recent[:] = [-math.inf] * self._rule.window
        self._at, self._below, self.on, self.statistic = 0, 0, False, -np.inf

    def update(self, score: float, hazard: bool = False) -> bool:
        """Whether the trigger is on after this tick; a hazard (NaN, watchdog) switches it on at once."""
        self._recent[self._at] = float(score) if math.isfinite(score) else -math.inf
        self._at = (self._at + 1) % self._rule.window
        self.statistic = sorted(self._recent)[-self._rule.needed]
        self._below = self._below + 1 if score <= self._release() else 0
        if hazard or self.statistic >= self.threshold:
            self.on = True
        elif self._below >= self._rule.release_steps:
            self.on = False
        return self.on

    def _release(self) -> float:
        """Score at or below which the alarm may end; evidence, unlike a probability, can have a threshold below 0."""
        return self.threshold - (1 - self._rule.release_ratio) * abs(self.threshold)

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode: `recent` (N,) scores of the window and `scalars` (4,)."""
        return {"recent": np.array(self._recent), "scalars": np.array([self._at, self._below, self.on, self.statistic])}

    def load_state(self, state: dict[str, Array]) -> None:
        """Go on from what `save_state` gave: `recent` (N,) and `scalars` (4,)."""
        self._recent[:] = state["recent"].tolist()
        at, below, on, statistic = state["scalars"]
        self._at, self._below, self.on, self.statistic = int(at), int(below), bool(on), float(statistic)


def episode_statistic(scores: Array, rule: TriggerRule) -> float:
    """Largest trigger statistic of `scores` (T,): the trigger fires exactly when it reaches the threshold.

    -inf for an episode shorter than `needed` ticks (it cannot fire).
    """
    if len(scores) < rule.needed:
        return float("-inf")
    trigger = Trigger(rule, float("inf"))
    best = float("-inf")
    for value in scores:
        trigger.update(float(value))
        best = max(best, trigger.statistic)
    return best
