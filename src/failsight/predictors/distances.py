"""Embedding distances: how much nearer the hidden state is to those of failures than to those of successes.

Score of a step = distance to successes - distance to failures; score so far = its running mean (a running sum, as in
SAFE's grid, grows with time). References are the training steps, thinned to at most 1,000 per class.
Source: baselines of SAFE (Gu et al. 2025, arXiv 2506.09937). Mahalanobis and k-means work on 64 principal components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.cluster import KMeans

from failsight.core.errors import BundleError
from failsight.core.rng import keyed_rng
from failsight.core.types import Array, Risk
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.missing import filled, usual_values
from failsight.predictors.transforms import whitening

_REFERENCES, _COMPONENTS, _CLUSTERS = 1000, 64, 32


class DistancePredictor:
    """Running mean of a distance difference; subclasses say which distance."""

    name = ""
    neighbours = 5

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: `good` and `bad` references (R, C), `usual` (D,) for what is missing, and `basis` (C, D), `centre` (C,) when projected."""
        self.arrays = dict(arrays)
        try:
            self._sides = arrays["good"], arrays["bad"]
            self.hidden_size = len(arrays["usual"])
        except KeyError as error:
            raise BundleError(f"The model file has no array {error}; it is not a {self.name} predictor.") from error
        self._lengths = {id(side): (side * side).sum(1) for side in self._sides}
        self.reset("")

    def reset(self, task: str) -> None:
        """Start an episode."""
        self._total, self._steps = 0.0, 0

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Score after one more step. Raises BundleError unless `hidden` is (D,) of the size it was fitted on."""
        if hidden is None or len(hidden) != self.hidden_size:
            found = "none" if hidden is None else str(len(hidden))
            raise BundleError(f"This detector needs a hidden state of size {self.hidden_size}; it got {found}.")
        value = filled(hidden, self.arrays["usual"])
        if "basis" in self.arrays:
            value = self.arrays["basis"] @ value - self.arrays["centre"]
        self._total += self.distance(value, self._sides[0]) - self.distance(value, self._sides[1])
        self._steps += 1
        return Risk(p_fail=float("nan"), evidence=self._total / self._steps)

    def distance(self, value: Array, references: Array) -> float:
        """Mean Euclidean distance of `value` (C,) to the nearest of `references` (R, C)."""
        square = np.maximum(self._lengths[id(references)] - 2 * (references @ value) + value @ value, 0)
        count = min(self.neighbours, len(square))
        return float(np.sqrt(np.partition(square, count - 1)[:count]).mean())

    def save_state(self) -> dict[str, Array]:
        """`sum` (2,): of the differences, and the number of steps."""
        return {"sum": np.array([self._total, self._steps])}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it."""
        self._total, self._steps = float(state["sum"][0]), int(state["sum"][1])


class EuclideanKnn(DistancePredictor):
    """Euclidean distance to the five nearest."""

    name = "euclidean-knn"


class CosineKnn(DistancePredictor):
    """Cosine distance to the five nearest; references have length 1."""

    name = "cosine-knn"

    def distance(self, value: Array, references: Array) -> float:
        """1 - mean cosine of `value` (C,) with the nearest of `references` (R, C)."""
        cosine = references @ (value / max(float(np.linalg.norm(value)), 1e-6))
        count = min(self.neighbours, len(cosine))
        return float(1 - np.partition(cosine, -count)[-count:].mean())


class PcaKmeans(DistancePredictor):
    """Distance to the nearest of 32 cluster centres."""

    name = "pca-kmeans"
    neighbours = 1


class Mahalanobis(DistancePredictor):
    """Distance to a Gaussian of each class; references are [whitening matrix (C, C); mean (1, C)]."""

    name = "mahalanobis"

    def distance(self, value: Array, references: Array) -> float:
        """Mahalanobis distance of `value` (C,); `references` (C + 1, C): whitening matrix, then mean."""
        y = references[:-1] @ (value - references[-1])
        return float(np.sqrt(y @ y))


def fit_distance(kind: type[DistancePredictor], train: Sequence[LabelledSequence], seed: int) -> DistancePredictor:
    """References from training steps of both outcomes."""
    usual = usual_values(np.concatenate([s.hidden for s in train if s.hidden is not None]))
    good, bad = (_steps(train, failed, usual) for failed in (False, True))
    arrays: dict[str, Array] = {"usual": usual.astype(np.float32)}
    if issubclass(kind, PcaKmeans | Mahalanobis):
        both = np.concatenate([good, bad])
        centre = both.mean(0)
        basis = whitening(both - centre, _COMPONENTS)
        arrays |= {"basis": basis, "centre": basis @ centre}
        good, bad = good @ basis.T - arrays["centre"], bad @ basis.T - arrays["centre"]
    for name, side in (("good", good), ("bad", bad)):
        arrays[name] = _references(kind, side, name, seed)
    return kind(arrays)


def _references(kind: type[DistancePredictor], side: Array, name: str, seed: int) -> Array:
    if issubclass(kind, PcaKmeans):
        model = KMeans(min(_CLUSTERS, len(side)), n_init=1, random_state=seed).fit(side)
        return np.asarray(model.cluster_centers_, np.float32)
    if issubclass(kind, Mahalanobis):
        covariance = np.cov(side.T.astype(np.float64)) + 1e-2 * np.eye(side.shape[1])
        values, vectors = np.linalg.eigh(covariance)
        return np.concatenate([(vectors / np.sqrt(values)).T, side.mean(0)[None]]).astype(np.float32)
    rows = keyed_rng(seed, "references", name).permutation(len(side))[:_REFERENCES]
    chosen = side[np.sort(rows)]
    if issubclass(kind, CosineKnn):
        chosen = chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-6)
    return np.ascontiguousarray(chosen, np.float32)


def _steps(train: Sequence[LabelledSequence], failed: bool, usual: Array) -> Array:
    return filled(np.concatenate([s.hidden for s in train if s.failed == failed and s.hidden is not None]), usual)
