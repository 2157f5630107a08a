"""The SALUS-style predictor: a 6-64-64-4 network (4,868 parameters) on the six uncertainty signals, no memory.

A wider first layer reads more signals of the bank (the six come first).

Output k is the probability that the episode fails by type k; p_fail is the largest of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from failsight.core.errors import BundleError
from failsight.core.types import Array, Risk
from failsight.predictors.features import LOG_MASK, Whitening


class MlpPredictor:
    """Streaming step; sees as many signals as its first layer takes."""

    name = "salus-mlp"
    hidden_size = 0

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: `mean`, `scale` (S,) and `w0 b0 w1 b1 w2 b2` of the three layers; `columns` (S,) says where its
        signals are among those of a step, by default the first.
        """
        self.arrays = dict(arrays)
        if "w2" not in arrays:
            raise BundleError("The model file is not a salus-mlp predictor.")
        inputs = len(arrays["mean"])
        self._columns = arrays["columns"] if "columns" in arrays else np.arange(inputs)
        self._whitening = Whitening(mean=arrays["mean"], scale=arrays["scale"], signals=inputs, log=LOG_MASK[:inputs])

    def reset(self, task: str) -> None:
        """No memory."""

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Risk from this tick's signals."""
        probability = self.probabilities(signals[self._columns])
        return Risk(p_fail=float(probability.max()), type=probability)

    def probabilities(self, signals: Array) -> Array:
        """(..., S) signals -> (..., 4) probability of each failure type."""
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
