"""Comparing arms that ran the same keyed episodes.

Rescue: fails without, succeeds with. Harm: succeeds without, does not succeed with. Only on triggered episodes do the two
futures differ; what a rate is a share of is said with it. A safe stop is neither a success nor a failure; here it counts
as "not a success".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from failsight.core.types import Array, Outcome
from failsight.evaluation.intervals import Estimate, bootstrap, proportion


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedEpisode:
    """One keyed episode under one arm."""

    task: str
    outcome: Outcome
    collision: bool
    triggered: bool
    steps: int
    intervened_steps: int
    human_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """Figures of one arm against doing nothing."""

    name: str
    pairs: int
    triggers: int
    success_rate: Estimate
    collision_rate: Estimate
    stop_rate: Estimate
    rescue_rate: Estimate
    """Rescues, of triggered episodes that fail without."""
    harm_rate: Estimate
    """Harms, of all episodes that succeed without."""
    harm_alarmed: Estimate
    """Harms, of triggered episodes that succeed without."""
    rr: Estimate
    """Triggered episodes that end in success, of all triggered ones; a trigger on what would have succeeded inflates it."""
    rescues: int
    harms: int
    success_change: Estimate
    """Paired difference of success rates, arm minus none."""
    failure_reduction: Estimate
    """Share of the failures of doing nothing that are gone, net of harms; stops are not failures but not counted as gone."""
    collision_reduction: Estimate
    mcnemar_p: float
    """Exact two-sided, on success."""
    e_value: float
    """Anytime-valid evidence for more successes (beta mixture over discordant pairs); 20 is strong."""
    duty_cycle: float
    human_minutes_per_hour: float
    """Of robot time."""

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        result: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            result[name] = value.as_dict() if isinstance(value, Estimate) else value
        return result


def compare(
    name: str, without: Sequence[PairedEpisode], with_arm: Sequence[PairedEpisode], rate_hz: float
) -> ArmResult:
    """All figures of an arm; the two sequences hold the same keyed episodes in the same order."""
    base = np.array([e.outcome == Outcome.SUCCESS for e in without], bool)
    arm = np.array([e.outcome == Outcome.SUCCESS for e in with_arm], bool)
    triggered = np.array([e.triggered for e in with_arm], bool)
    stopped = np.array([e.outcome == Outcome.STOPPED for e in with_arm], bool)
    hit_base = np.array([e.collision for e in without], bool)
    hit_arm = np.array([e.collision for e in with_arm], bool)
    tasks = [e.task for e in without]
    wins, losses = int((~base & arm).sum()), int((base & ~arm).sum())
    fails, holds = triggered & ~base, triggered & base
    steps = sum(e.steps for e in with_arm)
    return ArmResult(
        name=name,
        pairs=len(base),
        triggers=int(triggered.sum()),
        success_rate=proportion(int(arm.sum()), len(arm)),
        collision_rate=proportion(int(hit_arm.sum()), len(arm)),
        stop_rate=proportion(int(stopped.sum()), len(arm)),
        rescue_rate=proportion(int((fails & arm).sum()), int(fails.sum())),
        harm_rate=proportion(losses, int(base.sum())),
        harm_alarmed=proportion(int((holds & ~arm).sum()), int(holds.sum())),
        rr=proportion(int((triggered & arm).sum()), int(triggered.sum())),
        rescues=int((fails & arm).sum()),
        harms=int((holds & ~arm).sum()),
        success_change=bootstrap(lambda rows: _change(base, arm, rows), tasks, (name, "success")),
        failure_reduction=bootstrap(lambda rows: _reduction(~base, ~arm, rows), tasks, (name, "failures")),
        collision_reduction=bootstrap(lambda rows: _reduction(hit_base, hit_arm, rows), tasks, (name, "collisions")),
        mcnemar_p=mcnemar(wins, losses),
        e_value=beta_e_value(wins, losses),
        duty_cycle=sum(e.intervened_steps for e in with_arm) / max(1, steps),
        human_minutes_per_hour=60.0 * sum(e.human_steps for e in with_arm) / max(1, steps),
    )


def success_gap(name: str, first: Sequence[PairedEpisode], second: Sequence[PairedEpisode]) -> Estimate:
    """Paired difference of success rates of two arms, first minus second, on the same keyed episodes in the same order.

    Each arm's change against doing nothing holds the same episode of doing nothing, so the difference of their changes
    is this one.
    """
    one, other = (np.array([e.outcome == Outcome.SUCCESS for e in arm], bool) for arm in (first, second))
    return bootstrap(lambda rows: _change(other, one, rows), [e.task for e in first], (name, "gap"))


def _change(base: Array, arm: Array, rows: Array) -> float:
    return float(arm[rows].mean() - base[rows].mean()) if len(rows) else float("nan")


def _reduction(base: Array, arm: Array, rows: Array) -> float:
    before = base[rows].sum()
    return float(1 - arm[rows].sum() / before) if before else float("nan")


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided McNemar p-value; 1 without discordant pairs."""
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(min(wins, losses), wins + losses, 0.5).pvalue)


def beta_e_value(wins: int, losses: int) -> float:
    """Likelihood ratio of a uniform win probability on (1/2, 1) against 1/2; valid at any stopping time.

    >>> round(beta_e_value(5, 0), 1)
    10.5
    """
    from scipy.special import betainc, betaln

    a, b = wins + 1, losses + 1
    upper = 1.0 - float(betainc(a, b, 0.5))
    if upper <= 0.0:
        return 0.0
    return float(np.exp(np.log(2) + betaln(a, b) + np.log(upper) + (wins + losses) * np.log(2)))
