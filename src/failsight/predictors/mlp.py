"""The SALUS-style predictor: a 6-64-64-4 network (4,868 parameters) on the six uncertainty signals, no memory.

Output k is the probability that the episode fails by type k; p_fail is the largest of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from failsight.core.errors import BundleError
from failsight.core.types import Array, Risk
from failsight.predictors.features import Whitening
from failsight.signals.bank import UNCERTAINTY_NAMES


class MlpPredictor:
    """Streaming step; sees only the first six signals of the bank."""

    name = "salus-mlp"
    hidden_size = 0

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: `mean`, `scale` (6,) and `w0 b0 w1 b1 w2 b2` of the three layers."""
        self.arrays = dict(arrays)
        if "w2" not in arrays:
            raise BundleError("The model file is not a salus-mlp predictor.")
        inputs = len(UNCERTAINTY_NAMES)
        self._whitening = Whitening(mean=arrays["mean"], scale=arrays["scale"], signals=inputs)

    def reset(self, task: str) -> None:
        """No memory."""

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Risk from this tick's six signals."""
        probability = self.probabilities(signals[: len(UNCERTAINTY_NAMES)])
        return Risk(p_fail=float(probability.max()), type=probability)

    def probabilities(self, signals: Array) -> Array:
        """(..., 6) signals -> (..., 4) probability of each failure type."""
        x = self._whitening.apply(signals, None)
        for layer in range(2):
            x = np.maximum(x @ self.arrays[f"w{layer}"].T + self.arrays[f"b{layer}"], 0)
        logits = x @ self.arrays["w2"].T + self.arrays["b2"]
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits))

    def save_state(self) -> dict[str, Array]:
        """No memory."""
        return {}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """No memory."""
