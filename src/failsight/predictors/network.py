"""Published and own networks on logs, stepped in NumPy: inputs -> optional recurrent cell -> layers -> one score.

| name | inputs | network | score | source |
|---|---|---|---|---|
| gru-td | signals, averages, hidden (16 components) | GRU 32 | logit, fitted to TD(0.9) targets | own |
| safe-mlp | hidden | D-256-1 | running sum of sigmoids | Gu et al. 2025, arXiv 2506.09937 |
| safe-lstm | hidden | LSTM 256, linear | logit | Gu et al. 2025 |
| actprobe | chunk error, action norm, time, instruction | LSTM 32 with a skip, 16-8-1 | logit | Huang et al. 2026, arXiv 2606.08508 |
| signal-mlp | signals | S-64-64-1 | logit | own, the widths of SALUS |
| mist-mlp | hidden, unit length | D-2048-768-(1 + A) | first logit; one risk per action dimension | MIST-VLA (github.com/AnikS22/mist-vla) |

SAFE-MLP's sum grows with time by construction: it is kept as published, and its late AUC is the clock's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from failsight.core.errors import BundleError
from failsight.core.types import FAILURE_TYPES, Array, Risk
from failsight.predictors.inputs import InputDesign, InputStream
from failsight.predictors.words import embed


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A network on step inputs."""

    inputs: InputDesign
    cell: Literal["none", "gru", "lstm"] = "none"
    units: int = 0
    layers: tuple[int, ...] = ()
    """Widths of the hidden layers after the cell."""
    skip: bool = False
    """The layers also see the inputs beside the cell's output."""
    text: int = 0
    """The cell starts from a vector of that size made of the instruction's words; 0: from zeros."""
    unit_length: bool = False
    """Inputs are scaled to length 1."""
    cumulative: bool = False
    """Score = running sum of the step's sigmoid."""
    per_dimension: bool = False
    """Beside the score, one output per action dimension where those are known."""
    extra: dict[str, float] = field(default_factory=dict)


class NetworkPredictor:
    """Streaming step of a fitted `Design`; subclasses only name theirs."""

    name = ""
    design = Design(inputs=InputDesign())

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: the inputs' (`in.*`), the cell's (`cell.x`, `cell.h`, `cell.bx`, `cell.bh`), the instruction's
        (`text.w`, `text.b`, and `.w`, `.b` of `text.h`, `text.c`) and the layers' (`w0`, `b0`, ...).
        """
        self.arrays = dict(arrays)
        try:
            self._inputs = InputStream(arrays, self.design.inputs)
            self._depth = len(self.design.layers) + 1
            self._last = arrays[f"w{self._depth - 1}"]
        except KeyError as error:
            raise BundleError(f"The model file has no array {error}; it is not a {self.name} predictor.") from error
        self.hidden_size = self._inputs.hidden_size
        self.reset("")

    def reset(self, task: str) -> None:
        """Start an episode, its instruction unknown."""
        self._inputs.reset(task)
        self._sum = 0.0
        self._h = np.zeros(self.design.units, np.float32)
        self._c = np.zeros(self.design.units, np.float32)
        self.instruct("")

    def instruct(self, text: str) -> None:
        """Where the network reads the instruction, its cell starts from it."""
        if self.design.text:
            seen = np.maximum(self._linear("text", embed(text, self.design.text)), 0)
            self._h, self._c = self._linear("text.h", seen), self._linear("text.c", seen)

    def _linear(self, name: str, x: Array) -> Array:
        return np.asarray(self.arrays[f"{name}.w"] @ x + self.arrays[f"{name}.b"])

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Score after one more step."""
        logits = self._logits(self._inputs.update(signals, hidden))
        top = float(logits[0])
        if self.design.cumulative:
            self._sum += float(sigmoid(logits)[0])
            top = self._sum
        return Risk(
            p_fail=float("nan"), evidence=top, dimension=sigmoid(logits[1:]), type=np.full(len(FAILURE_TYPES), np.nan)
        )

    def _logits(self, x: Array) -> Array:
        design, arrays = self.design, self.arrays
        if design.unit_length:
            x = x / max(float(np.sqrt(x @ x)), 1e-6)
        seen = x
        if design.cell == "gru":
            self._h = _gru(arrays, x, self._h)
        elif design.cell == "lstm":
            self._h, self._c = _lstm(arrays, x, self._h, self._c)
        if design.cell != "none":
            seen = np.concatenate([self._h, x]) if design.skip else self._h
        for layer in range(self._depth - 1):
            seen = np.maximum(arrays[f"w{layer}"] @ seen + arrays[f"b{layer}"], 0)
        return np.asarray(self._last @ seen + arrays[f"b{self._depth - 1}"])

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode: `h` and `c` (units,), `sum` (), and that of the inputs."""
        return {"h": self._h.copy(), "c": self._c.copy(), "sum": np.array(self._sum), **self._inputs.save_state()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it, after `reset` with the task of the episode."""
        self._h, self._c, self._sum = state["h"].copy(), state["c"].copy(), float(state["sum"])
        self._inputs.load_state(state)


def sigmoid(x: Array) -> Array:
    """Logistic function of (...) through tanh: no overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def _gru(arrays: Mapping[str, Array], x: Array, h: Array) -> Array:
    units = len(h)
    gx = arrays["cell.x"] @ x + arrays["cell.bx"]
    gh = arrays["cell.h"] @ h + arrays["cell.bh"]
    gates = sigmoid(gx[: 2 * units] + gh[: 2 * units])
    new = np.tanh(gx[2 * units :] + gates[:units] * gh[2 * units :])
    return np.asarray((1 - gates[units:]) * new + gates[units:] * h)


def _lstm(arrays: Mapping[str, Array], x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    gates = arrays["cell.x"] @ x + arrays["cell.bx"] + arrays["cell.h"] @ h + arrays["cell.bh"]
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


class GruTd(NetworkPredictor):
    """GRU-32 with TD(lambda) targets on signals."""

    name = "gru-td"
    design = Design(inputs=InputDesign(average=True, centre_tasks=True, clip=6.0), cell="gru", units=32)


class GruTdHidden(NetworkPredictor):
    """The same with 16 principal components of the hidden state."""

    name = "gru-td-hidden"
    design = Design(
        inputs=InputDesign(average=True, centre_tasks=True, clip=6.0, hidden=True, components=16),
        cell="gru",
        units=32,
    )


class SafeMlp(NetworkPredictor):
    """SAFE-MLP: per-step network, sigmoids summed over time."""

    name = "safe-mlp"
    design = Design(inputs=InputDesign(signals=False, hidden=True), layers=(256,), cumulative=True)


class SafeLstm(NetworkPredictor):
    """SAFE-LSTM."""

    name = "safe-lstm"
    design = Design(inputs=InputDesign(signals=False, hidden=True), cell="lstm", units=256)


class ActProbe(NetworkPredictor):
    """ActProbe: two action signals and the time, conditioned on the instruction."""

    name = "actprobe"
    design = Design(
        inputs=InputDesign(only=("chunk_mse", "overlap", "action_norm", "action_magnitude"), time=True),
        cell="lstm",
        units=32,
        layers=(16, 8),
        skip=True,
        text=64,
    )


class SignalMlp(NetworkPredictor):
    """Two layers of 64 on whatever signals a log has, one output: what is left of SALUS without its signals and types."""

    name = "signal-mlp"
    design = Design(inputs=InputDesign(), layers=(64, 64))


class MistMlp(NetworkPredictor):
    """MIST risk network on the normalised hidden state; 10.0 M parameters at D = 4096 and 7 dimensions."""

    name = "mist-mlp"
    design = Design(
        inputs=InputDesign(signals=False, hidden=True), layers=(2048, 768), unit_length=True, per_dimension=True
    )
