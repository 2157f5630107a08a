"""What a training says about its data before the first step, and `failsight audit` beside its tables."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from failsight.core.types import Array
from failsight.episodes.demonstrations import DemonstrationSet
from failsight.policies.vla.design import VLAConfig
from failsight.policies.vla.normalise import RARE, statistics
from failsight.policies.vla.telling import confused, tiny_confuses, tokens_of
from failsight.training.loop import Split

TWIN_DISTANCE = 0.1
"""Episodes of a scenario whose resampled action paths differ on average by less than this share of the data's own
deviation are near-duplicates."""
CUT = 0.2
"""Quantiles that span less than this share of a column's range cut much off when values are clipped to them."""
_POINTS = 16


def before_training(data: DemonstrationSet, config: VLAConfig, split: Split) -> list[str]:
    """Sentences about what this policy cannot learn from this data, or would only seem to."""
    texts = {text: data.phrasings.get(text, ()) for text in data.instructions}
    found = [_alike(group, f"the {config.backbone.family} backbone") for group in confused(texts, tokens_of(config))]
    found += scale_warnings("action", config.action_spec.names, config.statistics["action"], config.scheme == "q01q99")
    if config.use_state:
        found += scale_warnings("state", config.observation_spec.state, config.statistics["state"], False)
    return found + copy_warnings(data, split)


def language_warnings(data: DemonstrationSet) -> list[str]:
    """Instructions the `tiny` backbone would read as the same words."""
    texts = {text: data.phrasings.get(text, ()) for text in data.instructions}
    return [_alike(group, "the tiny backbone") for group in tiny_confuses(texts)]


def _alike(group: Sequence[str], who: str) -> str:
    shown = ", ".join(repr(text) for text in group[:4]) + (", ..." if len(group) > 4 else "")
    return f"{who} cannot tell these instructions apart (same tokens): {shown}; word them differently."


def scale_warnings(what: str, names: Sequence[str], table: Any, clipped: bool) -> list[str]:
    """Columns that do not move, or so rarely that quantiles miss it; `clipped`: values are clipped to the quantiles."""
    found = []
    for i, name in enumerate(names):
        low, high, least, most = (float(table[key][i]) for key in ("q01", "q99", "min", "max"))
        if table["still"][i]:
            advice = "leave it out with --action-dims" if what == "action" else "a policy will ignore it"
            found.append(f"{what} dimension {name} never changes ({table['mean'][i]:g}); {advice}.")
        elif high - low < RARE * (most - least):
            found.append(
                f"{what} dimension {name} rarely moves: 98 % of the frames lie within {low:g} to {high:g}, all within "
                f"{least:g} to {most:g}. It is scaled by the whole range, and the policy sees few examples of it."
            )
        elif clipped and high - low < CUT * (most - least):
            found.append(
                f"{what} dimension {name} is clipped to its quantiles {low:g} to {high:g} and reaches {least:g} to {most:g}; "
                "use --scheme min-max if the far values matter."
            )
    return found


def all_scale_warnings(data: DemonstrationSet) -> list[str]:
    """The same for every column of a data set."""
    table = statistics(np.asarray(data.actions), np.asarray(data.states))
    found = scale_warnings("action", data.action_spec.names, table["action"], True)
    return found + scale_warnings("state", data.observation_spec.state, table["state"], False)


def copy_warnings(data: DemonstrationSet, split: Split) -> list[str]:
    """Exact copies (kept on one side of the split), and near-copies of validation episodes among the trained ones."""
    found = []
    used = sorted((*split.train, *split.valid))
    group = copy_groups(data)
    copies = len(used) - len({group[e] for e in used})
    if copies:
        found.append(
            f"{copies} of {len(used)} episodes are exact copies of others; copies stay on one side of the split, and what "
            "was recorded twice counts twice."
        )
    near = {v for t, v in twins(data, split.train, split.valid) if group[t] != group[v]}
    if near:
        found.append(
            f"{len(near)} of {len(split.valid)} validation episodes are nearly the same as one that is trained on; the "
            "validation loss may be memory. Hold whole scenarios out with --hold-out."
        )
    return found


def copy_groups(data: DemonstrationSet) -> list[str]:
    """One key per episode: equal for episodes with the same states, actions and texts."""
    keys = []
    for row in data.episodes:
        digest = hashlib.blake2b(repr((row.texts, [t for t, _ in row.changes])).encode(), digest_size=16)
        for array in (data.states, data.actions):
            digest.update(np.ascontiguousarray(array[row.first : row.first + row.length]).tobytes())
        keys.append(digest.hexdigest())
    return keys


def paths(data: DemonstrationSet) -> Array:
    """(episodes, 16, A) resampled action paths in units of the data's own deviation."""
    deviation = np.asarray(data.actions).std(0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, 1.0)
    return np.stack([_resample(np.asarray(data.actions[r.first : r.first + r.length])) / scale for r in data.episodes])


def twins(data: DemonstrationSet, some: Sequence[int], others: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of (some, others) of one scenario whose paths are all but the same."""
    if not some or not others:
        return []
    all_paths, names = paths(data), [row.scenario for row in data.episodes]
    candidates: dict[str, list[int]] = {}
    for episode in some:
        candidates.setdefault(names[episode], []).append(episode)
    found = []
    for other in others:
        near = candidates.get(names[other], [])
        if near:
            close = np.abs(all_paths[near] - all_paths[other]).mean((1, 2)) < TWIN_DISTANCE
            found += [(near[i], other) for i in np.flatnonzero(close)]
    return found


def _resample(actions: Array) -> Array:
    at = np.linspace(0, len(actions) - 1, _POINTS)
    return np.stack([np.interp(at, np.arange(len(actions)), actions[:, i]) for i in range(actions.shape[1])], 1)
