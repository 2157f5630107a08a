"""`failsight limits`: what the successful episodes of a run stayed within, as limits for the guard of its robot."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.specs import ActionSpec
from failsight.core.types import Outcome
from failsight.episodes.run import Run
from failsight.interventions.limits import GuardLimits, limits_from

_LEAST_STEPS = 3
COLUMNS = ("dimension", "kind", "range", "velocity per step", "per second", "acceleration per step")


class FoundLimits(NamedTuple):
    """Limits, and what they come from."""

    limits: GuardLimits
    actions: ActionSpec
    episodes: int
    steps: int


def find_limits(folder: Path, quantile: float) -> FoundLimits:
    """From the successful episodes of a run. Raises EpisodeDataError when it has no actions or no such episode."""
    run = Run(folder)
    if not run.meta.has_actions:
        raise EpisodeDataError(f"{folder} holds signals alone; limits are of actions.")
    good = [meta.ticket for meta in run.episodes if meta.outcome == Outcome.SUCCESS and meta.length >= _LEAST_STEPS]
    if not good:
        raise EpisodeDataError(
            f"{folder} has no successful episode of {_LEAST_STEPS} steps; nothing shows what is usual."
        )
    pairs = [(episode.states, episode.actions) for episode in run.read(good)]
    limits = limits_from(pairs, run.meta.action_spec, run.meta.observation_spec, quantile)
    return FoundLimits(limits, run.meta.action_spec, len(pairs), sum(len(actions) for _, actions in pairs))


def limit_rows(found: FoundLimits) -> list[tuple[str, ...]]:
    """A row of `COLUMNS` per action dimension, in units of the action; per second in its physical unit."""
    limits, spec, rows = found.limits, found.actions, list[tuple[str, ...]]()
    for i, d in enumerate(spec.dimensions):
        velocity, per_s = float(limits.caps.velocity[i]), d.scale * (spec.rate_hz if d.kind != "velocity" else 1.0)
        second = f"{velocity * per_s:.4g} {d.unit}/s" if np.isfinite(velocity) and spec.rate_hz else "-"
        low, high = max(d.low, float(limits.low[i])), min(d.high, float(limits.high[i]))
        rows.append(
            (d.name, d.kind, f"{low:.4g} to {high:.4g}", _cap(velocity), second, _cap(limits.caps.acceleration[i]))
        )
    return rows


def relative_target(found: FoundLimits) -> str:
    """The answer to "what is a safe max_relative_target?", for robots that are given targets."""
    pairs = zip(found.actions.dimensions, found.limits.caps.velocity, strict=True)
    caps = {
        d.name: round(float(velocity), 6) for d, velocity in pairs if d.kind == "absolute" and np.isfinite(velocity)
    }
    if not caps:
        return "max_relative_target is about absolute targets, and no dimension of these actions is one"
    return f"max_relative_target = {caps}"


def _cap(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "-"
