"""Success-only novelty of the hidden state: it was learned what successes look like, the score says how unlike this is.

- **rnd**: a network learns to imitate a random one on successes; score = squared difference (Burda et al. 2018;
  RND baseline of SAFE and FIPER).
- **logpzo**: flow matching carries successes to Gaussian noise; score = squared length of the image x + v(x, 0) after
  one step (FAIL-Detect, Xu et al. 2025, arXiv 2503.08558).

Both work on 32 principal components with networks of about 20,000 parameters: the published 1-D U-Nets of tens of
millions do not fit a CPU benchmark, so these figures speak for the idea. The score so far is the running mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from failsight.core.errors import BundleError
from failsight.core.types import Array, Risk
from failsight.predictors.inputs import InputDesign, InputStream
from failsight.predictors.missing import present

INPUTS = InputDesign(signals=False, hidden=True, components=32)


class NoveltyPredictor(ABC):
    """Running mean of a novelty score."""

    name = ""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: the inputs' (`in.*`) and two or one networks of three layers (`student.w0`, ...)."""
        self.arrays = dict(arrays)
        if "student.w0" not in arrays or "in.usual" not in arrays:
            raise BundleError(f"The model file is not a {self.name} predictor.")
        self._inputs = InputStream(arrays, INPUTS)
        self.hidden_size = self._inputs.hidden_size
        self.reset("")

    def reset(self, task: str) -> None:
        """Start an episode."""
        self._inputs.reset(task)
        self._total, self._steps, self.last = 0.0, 0, 0.0

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Score after one more step."""
        self.last = self.novelty(self._inputs.update(signals, hidden))
        self._total += self.last
        self._steps += 1
        return Risk(p_fail=float("nan"), evidence=self._total / self._steps)

    @abstractmethod
    def novelty(self, x: Array) -> float:
        """Novelty of one step's inputs (C,)."""

    def save_state(self) -> dict[str, Array]:
        """`sum` (2,): of the scores, and the number of steps; and the memory of the inputs."""
        return {"sum": np.array([self._total, self._steps]), **self._inputs.save_state()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it."""
        self._total, self._steps = float(state["sum"][0]), int(state["sum"][1])
        self._inputs.load_state(state)


def run_layers(arrays: Mapping[str, Array], prefix: str, x: Array) -> Array:
    """Three layers with ReLU between them: x (C,) -> (K,), the rows of the last one."""
    for layer in range(3):
        x = arrays[f"{prefix}.w{layer}"] @ x + arrays[f"{prefix}.b{layer}"]
        if layer < 2:
            x = np.maximum(x, 0)
    return x


class Rnd(NoveltyPredictor):
    """Random network distillation."""

    name = "rnd"

    def novelty(self, x: Array) -> float:
        """Squared difference of the imitating and the random network."""
        gap = run_layers(self.arrays, "student", x) - run_layers(self.arrays, "teacher", x)
        return float(gap @ gap)


class LogpZo(NoveltyPredictor):
    """One-step image of a flow to noise."""

    name = "logpzo"

    def novelty(self, x: Array) -> float:
        """Squared length of x + v(x, 0)."""
        image = x + run_layers(self.arrays, "student", np.append(x, np.float32(0)))
        return float(image @ image)


class FiperPredictor:
    """FIPER: an alarm needs both, novelty of the hidden state and entropy of the drawn actions, over a window.

    Score = the smaller of the two standardised moving averages, so it is high only when both are.
    Source: Roemer et al. 2025, arXiv 2510.09459 (there: windowed sums with a threshold each).
    """

    name = "fiper"
    _window = 1 / 5

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: those of `rnd`, and `entropy.column` (), `entropy.scale` and `novelty.scale` (2,) each."""
        self.arrays = dict(arrays)
        self._rnd = Rnd(arrays)
        self.hidden_size = self._rnd.hidden_size
        self.reset("")

    def reset(self, task: str) -> None:
        """Start an episode."""
        self._rnd.reset(task)
        self._averages = np.zeros(2)

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Score after one more step."""
        self._rnd.update(signals, hidden)
        pair = np.array([self._rnd.last, float(signals[int(self.arrays["entropy.column"])])])
        scales = np.stack([self.arrays["novelty.scale"], self.arrays["entropy.scale"]])
        z = np.nan_to_num((present(pair) - scales[:, 0]) / scales[:, 1])  # a missing score counts as the usual one
        self._averages += self._window * (z - self._averages)
        return Risk(p_fail=float("nan"), evidence=float(self._averages.min()))

    def save_state(self) -> dict[str, Array]:
        """`averages` (2,) and the novelty's memory."""
        return {"averages": self._averages.copy(), **self._rnd.save_state()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it, after `reset` with the task of the episode."""
        self._averages = state["averages"].copy()
        self._rnd.load_state(state)
