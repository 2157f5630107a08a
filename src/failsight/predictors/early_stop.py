"""When to stop a fit: on training episodes that are set aside, by the ranking that detectors are judged by.

Nothing is ever chosen on the episodes that were fitted on: where too few of either outcome could be set aside, a fit
has a fixed length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from failsight.core.rng import keyed_rng
from failsight.core.types import Array
from failsight.predictors.dataset import LabelledSequence

_SHARE = 0.15
"""Of the training episodes, as in ActProbe and SAFE."""
_LEAST = 8
"""Episodes of either outcome that must be set aside: the ranking of fewer would stop a fit by luck."""
_QUARTER = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """How long to go on. Off unless `patience` is above 0."""

    every: int = 5
    """Epochs between two looks."""
    patience: int = 0
    """Epochs without a better ranking after which the fit stops."""
    blind: int = 60
    """Epochs of a fit that has too few episodes to set any aside."""


class Parts(NamedTuple):
    """Indices of training episodes."""

    kept: Array
    aside: Array
    """Empty where too few of either outcome could be set aside."""


def set_aside(train: Sequence[LabelledSequence], seed: int) -> Parts:
    """15 % of every task and outcome, keyed; remainders are drawn, so that rare outcomes are shared out fairly."""
    strata: dict[tuple[str, bool], list[int]] = {}
    for i, s in enumerate(train):
        strata.setdefault((s.task, s.failed), []).append(i)
    kept, aside = [], []
    for key in sorted(strata):
        rng = keyed_rng(seed, "set aside", *map(str, key))
        order = rng.permutation(strata[key])
        count = int(_SHARE * len(order) + rng.random())
        aside += order[:count].tolist()
        kept += order[count:].tolist()
    failed = sum(train[i].failed for i in aside)
    if min(failed, len(aside) - failed) < _LEAST:
        return Parts(np.arange(len(train)), np.zeros(0, int))
    return Parts(np.sort(kept), np.sort(aside))


def quarter_lengths(train: Sequence[LabelledSequence]) -> dict[str, int]:
    """Per task, a quarter of its longest episode: how far a score may look when a fit is judged."""
    longest: dict[str, int] = {}
    for s in train:
        longest[s.task] = max(longest.get(s.task, 0), len(s.signals))
    return {task: max(1, round(_QUARTER * steps)) for task, steps in longest.items()}


def early_auc(scores: Array, failed: Array, ends: Array) -> float:
    """AUC of the largest score of every row (N, T) before its end (N,)."""
    top = [float(row[:end].max()) for row, end in zip(scores, ends, strict=True)]
    return float(roc_auc_score(failed, top))
