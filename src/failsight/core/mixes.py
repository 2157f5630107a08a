"""Conditions of a mix dealt out over episodes by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from failsight.core.rng import keyed_rng
from failsight.core.types import EpisodeKey, Perturbation


def spread(tasks: Sequence[str], seeds: Sequence[int], trials: int, mix: Mapping[str, float]) -> tuple[EpisodeKey, ...]:
    """`trials` episodes of every task under every seed.

    Within a task and seed the conditions are a keyed shuffle of the mix in its proportions, so that a small plan
    still covers the mix.
    """
    conditions, shares = list(mix), list(mix.values())
    keys = []
    for seed in seeds:
        for task in tasks:
            start = float(keyed_rng(seed, task, "mix").random())
            order = keyed_rng(seed, task, "order").permutation(trials)
            for trial in range(trials):
                at = (start + (order[trial] + 0.5) / trials) % 1.0 * sum(shares)
                condition = next(c for c, upto in _cumulative(conditions, shares) if at <= upto)
                keys.append(
                    EpisodeKey(seed=seed, task=task, episode=trial, perturbations=Perturbation.parse(condition))
                )
    return tuple(keys)


def _cumulative(conditions: Sequence[str], shares: Sequence[float]) -> list[tuple[str, float]]:
    total, rows = 0.0, []
    for condition, share in zip(conditions, shares, strict=True):
        total += share
        rows.append((condition, total))
    return rows
