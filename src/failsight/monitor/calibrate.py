"""Calibration: from the evidence of episodes nothing was fitted on to all that a monitor decides by.

Works on evidence (T,) per episode, whoever computed it. Every threshold is for the statistic that is deployed: what the
rule makes of an episode (`episode_statistic`), after the band where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from failsight.core.types import Array
from failsight.monitor.band import Band, fit_band
from failsight.monitor.calibration import Calibration, conformal_threshold
from failsight.monitor.probability import ProbabilityMap
from failsight.monitor.thresholds import Thresholds, fit_thresholds
from failsight.monitor.trigger import Trigger, TriggerRule, episode_statistic

LOG_RULE = TriggerRule(needed=1, window=1, release_steps=1)
"""A step of a log is one inference: there is no time to wait for more of them. Control ticks keep the default rule."""
_GAIN_EPISODES = 20
_LEAST_GAIN = 1e-6


@dataclass(slots=True, kw_only=True)
class Calibrated:
    """What a monitor decides by."""

    rule: TriggerRule
    thresholds: Thresholds
    probability: ProbabilityMap | None = None
    """From evidence to p_fail; None: evidence is p_fail."""
    band: Band | None = None
    """The thresholds are for deviations from it; None: for the evidence itself."""

    def judged(self, evidence: Array) -> Array:
        """(T,) what a threshold is compared with."""
        return judged_by(self.band, evidence)


def judged_by(band: Band | None, evidence: Array) -> Array:
    """What the threshold is compared with, (T,)."""
    return evidence if band is None else band.apply(evidence)


def first_trigger(judged: Array, rule: TriggerRule, threshold: float) -> int | None:
    """First step of the scores `judged` (T,) at which the trigger is on; None when it never is."""
    trigger = Trigger(rule, threshold)
    return next((t for t, value in enumerate(judged) if trigger.update(float(value))), None)


def rule_of(signals: bool, rate_hz: float) -> TriggerRule:
    """The rule of a run: of logged inferences when it holds `signals`, else of control ticks at `rate_hz`."""
    return LOG_RULE if signals else TriggerRule().at(rate_hz)


def pooled_threshold(alarms: Sequence[Array], rule: TriggerRule, alpha: float) -> Calibration:
    """Split conformal over the alarms (T,) of successful episodes of any task. Raises CalibrationError for too few."""
    return conformal_threshold([episode_statistic(alarm, rule) for alarm in alarms], alpha)


def task_thresholds(
    evidence: Sequence[Array],
    tasks: Sequence[str],
    known: Sequence[str],
    rule: TriggerRule,
    band: Band | None,
    alpha: float,
) -> Thresholds:
    """Thresholds by task from the evidence (T,) of successful episodes; `known`: the task of every episode fitted on.

    Raises CalibrationError for too few.
    """
    statistics = [episode_statistic(judged_by(band, one), rule) for one in evidence]
    return fit_thresholds(statistics, tasks, alpha, known)


def usual_band(evidence: Sequence[Array]) -> Band | None:
    """The band of successful episodes' evidence (T,); None without any."""
    return fit_band(evidence) if evidence else None


def few_successes(thresholds: Thresholds) -> str:
    """What the promise of a rate is worth where tasks share a threshold; empty where none does."""
    known = thresholds.known or {}
    pooled = [task for task in known if thresholds.choose(task).basis == "pooled"]
    if not pooled:
        return ""
    return (
        f"pooled threshold on {len(pooled)} of {len(known)} tasks: fewer than 20 calibration successes each; the promised "
        "rate holds on average over them, not on each"
    )


def with_imminent(rule: TriggerRule, p_fail: Sequence[Array], imminent: Sequence[Array], alpha: float) -> TriggerRule:
    """The rule with its imminent-collision channel scaled to p_fail; both (T,) per successful validation episode.

    The gain makes both channels equally rare on them: it is the ratio of their (1 - alpha/2) quantiles. The threshold
    itself is calibrated afterwards, on other episodes. With fewer than 20 episodes, or a predictor without that output,
    the channel stays off.
    """
    if len(p_fail) < _GAIN_EPISODES:
        return rule
    share = 1 - alpha / 2
    high = np.quantile([episode_statistic(one, rule) for one in p_fail], share)
    low = np.quantile([episode_statistic(one, rule) for one in imminent], share)
    if not (np.isfinite(high) and _LEAST_GAIN < low < high):
        return rule
    return replace(rule, imminent_gain=float(high / low))
