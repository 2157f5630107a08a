"""Fitting the blend: every member on the training episodes, its mean and spread on episodes none of them has seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.rng import keyed_rng
from failsight.core.types import Array
from failsight.predictors.blend import KINDS, BlendPredictor, evidence_of, scale_of
from failsight.predictors.dataset import LabelledSequence

MemberFit = Callable[[Sequence[LabelledSequence]], Predictor]
_HELD = 0.15
"""Share of the training episodes that is kept apart when nobody else kept any."""


def fit_blend(
    train: Sequence[LabelledSequence], held: Sequence[LabelledSequence], fits: Mapping[str, MemberFit], seed: int
) -> BlendPredictor:
    """Fit the members named in `fits` and standardise each on the successful episodes of `held`.

    Without `held` a keyed 15 % of the training episodes are kept apart first. Of `held` without a success all count.
    """
    if not held:
        train, held = keep_apart(train, seed)
    usual = [s for s in held if not s.failed] or list(held)
    arrays: dict[str, Array] = {}
    for name in (name for name in KINDS if name in fits):
        member = fits[name](train)
        arrays |= {f"{name}/{key}": np.asarray(value) for key, value in member.arrays.items()}  # type: ignore[attr-defined]
        arrays[f"scale.{name}"] = scale_of(np.concatenate([_stepped(name, member, s) for s in usual]))
    return BlendPredictor(arrays)


def keep_apart(
    train: Sequence[LabelledSequence], seed: int
) -> tuple[Sequence[LabelledSequence], Sequence[LabelledSequence]]:
    """Training episodes and the keyed share of each outcome that is kept apart (at least one success, when there are 2)."""
    good = [i for i, s in enumerate(train) if not s.failed]
    if len(good) < 2:
        return train, train
    away = set[int]()
    for outcome in (False, True):
        rows = np.array([i for i, s in enumerate(train) if s.failed == outcome], int)
        count = int(_HELD * len(rows)) or int(not outcome)
        away |= set(keyed_rng(seed, "blend", int(outcome)).permutation(rows)[:count].tolist())
    return [s for i, s in enumerate(train) if i not in away], [train[i] for i in sorted(away)]


def _stepped(name: str, member: Predictor, s: LabelledSequence) -> Array:
    member.reset(s.task)
    hidden = s.hidden if s.hidden is not None else [None] * len(s.signals)
    return np.array([evidence_of(name, member.update(x, h)) for x, h in zip(s.signals, hidden, strict=True)])
