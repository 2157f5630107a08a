"""Detectors that are one logged number: its running mean, with a sign, and nothing learned.

| name | columns | source |
|---|---|---|
| running-mean | log chunk error | ActProbe's TCE, here as a running mean |
| stac-single | distance of the overlap of consecutive chunks, one sample | SAFE's STAC-Single; Agia et al. 2024 |
| stac | MMD of the overlap of consecutive sets of samples | Agia et al. 2024, arXiv 2410.04640 |
| sample-variance | variance over drawn chunks | SAFE's baseline |
| cluster-entropy | entropy of the clusters of drawn chunks | SAFE's baseline |
| action-entropy | entropy of the drawn end positions on a grid | FIPER's ACE, arXiv 2510.09459 |
| token-probability, token-entropy | -log p and entropy of action tokens | SAFE's baselines |
| reversals | direction reversals of the action | arXiv 2605.28726 |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from failsight.core.errors import BundleError
from failsight.core.types import Array, Risk
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.transforms import log_positive, pad, positive_columns

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "running-mean": ("chunk_mse", "overlap"),
    "stac-single": ("chunk_mse_mmd", "overlap"),
    "stac": ("stac",),
    "sample-variance": ("action_variance",),
    "cluster-entropy": ("cluster_entropy",),
    "action-entropy": ("action_entropy",),
    "token-probability": ("token_nll",),
    "token-entropy": ("token_entropy",),
    "reversals": ("reversals_x", "reversals_y", "reversals_z", "reversals"),
}
"""Detector -> names of columns it can be computed from; of the first five, the first that is there."""
_ALL = ("reversals",)
"""Detectors that add up every column that is there."""


class ScalarPredictor:
    """Running mean of standardised columns."""

    name = "scalar"
    hidden_size = 0

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: `columns` (C,), `log` (C,) bool, `usual` (C,) value for a missing one, `scale` (C,)."""
        self.arrays = dict(arrays)
        if "usual" not in arrays:
            raise BundleError("The model file is not a scalar predictor.")
        self.reset("")

    def reset(self, task: str) -> None:
        """Start an episode."""
        self._total, self._steps = 0.0, 0

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Score after one more step."""
        arrays = self.arrays
        values = log_positive(signals[arrays["columns"]], arrays["log"].astype(bool))
        z = np.where(np.isfinite(values), (values - arrays["usual"]) * arrays["scale"], 0.0)
        self._total += float(z.sum())
        self._steps += 1
        return Risk(p_fail=float("nan"), evidence=self._total / self._steps)

    def save_state(self) -> dict[str, Array]:
        """`sum` (2,): of the standardised columns, and the number of steps."""
        return {"sum": np.array([self._total, self._steps])}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it."""
        self._total, self._steps = float(state["sum"][0]), int(state["sum"][1])


def find_columns(detector: str, names: Sequence[str]) -> list[int]:
    """Positions of the detector's columns; empty when the log has none."""
    found = [names.index(name) for name in COLUMNS[detector] if name in names]
    return found if detector in _ALL else found[:1]


def fit_scalar(detector: str, train: Sequence[LabelledSequence], names: Sequence[str]) -> ScalarPredictor:
    """Mean and spread of the columns over training steps; labels are not used."""
    columns = np.array(find_columns(detector, names))
    raw = pad([s.signals[:, columns] for s in train])
    log = positive_columns(raw)
    raw = log_positive(raw, log)
    spread = np.nanstd(raw, axis=(0, 1))
    return ScalarPredictor(
        {
            "columns": columns,
            "log": log,
            "usual": np.nan_to_num(np.nanmean(raw, axis=(0, 1))),
            "scale": np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-9),
        }
    )
