"""The default predictor's step in NumPy: an ensemble of small GRUs on hidden state and signals, preallocated.

Per member: linear + ReLU, GRU cell, linear heads for hazard (BINS), failure type (4) and dimension risk (A). All
members run as stacked matrices. The part of the first layer that reads the hidden state is reused until the policy
infers again. Torch is needed to fit it (`fit_recurrent`), never to run it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from failsight.core.errors import BundleError
from failsight.core.types import FAILURE_TYPES, Array, Risk
from failsight.predictors.features import LOG_MASK, Whitening
from failsight.predictors.hazard import BINS, EDGES, SOON, middles_of

_COLLISION = FAILURE_TYPES.index("collision")
_TYPES = len(FAILURE_TYPES)


class RecurrentPredictor:
    """Streaming ensemble; `update` costs a few matrix-vector products and allocates little."""

    name = "recurrent"

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: `mean`, `scale`, `signals` (), `log` (S,) when it is not the default, `enter_w` (E, U, S+D), `enter_b` (E, U), `gru_x` and `gru_h`
        (E, 3U, U), `bias_x` and `bias_h` (E, 3U), `head_w` (E, BINS + 4 + A, U), `head_b` (E, BINS + 4 + A), `edges` (BINS + 1,)
        of the hazard's bins when they are not those of 20 Hz and 160 steps, `untyped` () when no failure it was fitted
        on had a type: then it names none, and no coming collision.
        """
        self.arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        try:
            signals = int(arrays["signals"].ravel()[0])
            log = arrays["log"].astype(bool) if "log" in arrays else LOG_MASK[:signals]
            self.whitening = Whitening(mean=arrays["mean"], scale=arrays["scale"], signals=signals, log=log)
            self._members, self._units, inputs = arrays["enter_w"].shape
            self.edges = _edges(arrays.get("edges", np.array(EDGES)))
            self._outputs = arrays["head_w"].shape[1]
            self._typed = "untyped" not in arrays
        except KeyError as error:
            raise BundleError(f"The model file has no array {error}; it is not a recurrent predictor.") from error
        if inputs != len(self.whitening.mean):
            raise BundleError(f"The model reads {inputs} features but its whitening has {len(self.whitening.mean)}.")
        self._middles = middles_of(self.edges)
        split = self.whitening.signals
        flat = arrays["enter_w"].reshape(-1, inputs)
        self._enter_signals = np.ascontiguousarray(flat[:, :split])
        self._enter_hidden = np.ascontiguousarray(flat[:, split:])
        rows = self._members * self._units
        self._allocate(rows)
        self.reset("")

    def _allocate(self, rows: int) -> None:
        shape = (self._members, self._units, 1)
        self._enter_bias = self.arrays["enter_b"].reshape(-1).astype(np.float32)
        self._from_hidden, self._entered = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
        self._x, self._h = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._gates_x = np.zeros((self._members, 3 * self._units, 1), np.float32)
        self._gates_h = np.zeros_like(self._gates_x)
        self._out = np.zeros((self._members, self._outputs, 1), np.float32)
        self._bias_x, self._bias_h = self.arrays["bias_x"][..., None], self.arrays["bias_h"][..., None]
        self._head_bias = self.arrays["head_b"][..., None]
        self._signal_buffer = np.zeros(self.whitening.signals, np.float32)
        self._hidden_buffer = np.zeros(self.whitening.hidden, np.float32)
        self._log = self.whitening.log

    @property
    def hidden_size(self) -> int:
        """Size of the hidden state it needs; 0 when it reads signals only."""
        return self.whitening.hidden

    def reset(self, task: str) -> None:
        """Start an episode; the task is not used (its failure rate is not evidence)."""
        self._h[:] = 0
        self.lost: Array = np.zeros(BINS, np.float32)
        """(BINS,) probability of being lost in each bin of time, after the last update."""
        self._seen: Array | None = None

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Risk after one more tick; signals (S,), hidden (D,) or None when the model reads signals only."""
        self._enter(signals, hidden)
        units = self._units
        np.matmul(self.arrays["gru_x"], self._x, out=self._gates_x)
        np.matmul(self.arrays["gru_h"], self._h, out=self._gates_h)
        self._gates_x += self._bias_x
        self._gates_h += self._bias_h
        gates = _sigmoid(self._gates_x[:, : 2 * units] + self._gates_h[:, : 2 * units])
        reset, keep = gates[:, :units], gates[:, units:]
        new = np.tanh(self._gates_x[:, 2 * units :] + reset * self._gates_h[:, 2 * units :])
        self._h *= keep
        self._h += (1 - keep) * new
        np.matmul(self.arrays["head_w"], self._h, out=self._out)
        self._out += self._head_bias
        return self._risk(self._out[..., 0])

    def _enter(self, signals: Array, hidden: Array | None) -> None:
        split, whitening = self.whitening.signals, self.whitening
        buffer = self._signal_buffer
        buffer[:] = signals
        missing = ~np.isfinite(buffer)
        buffer[self._log] = np.log(np.maximum(buffer[self._log], 0.0) + np.float32(1e-4))
        _standardise(buffer, missing, whitening.mean[:split], whitening.scale[:split])
        if whitening.hidden and (hidden is None or hidden is not self._seen):
            if hidden is None or len(hidden) != whitening.hidden:
                found = "none" if hidden is None else str(len(hidden))
                raise BundleError(f"This predictor needs a hidden state of size {whitening.hidden}; it got {found}.")
            self._hidden_buffer[:] = hidden
            away = ~np.isfinite(self._hidden_buffer)
            _standardise(self._hidden_buffer, away, whitening.mean[split:], whitening.scale[split:])
            np.dot(self._enter_hidden, self._hidden_buffer, out=self._from_hidden)
            self._from_hidden += self._enter_bias
            self._seen = hidden
        np.dot(self._enter_signals, buffer, out=self._entered)
        self._entered += self._from_hidden if whitening.hidden else self._enter_bias
        np.maximum(self._entered, 0, out=self._x.reshape(-1))

    def _risk(self, out: Array) -> Risk:
        hazard = _sigmoid(out[:, :BINS])
        alive = np.cumprod(1 - hazard, axis=1)
        lost = hazard.copy()
        lost[:, 1:] *= alive[:, :-1]
        p_members = lost.sum(1)
        mean_lost = lost.mean(0)
        self.lost = mean_lost
        p_fail = float(p_members.mean())
        kinds = np.exp(out[:, BINS : BINS + _TYPES] - out[:, BINS : BINS + _TYPES].max(1, keepdims=True))
        kinds /= kinds.sum(1, keepdims=True)
        return Risk(
            p_fail=p_fail,
            time_to_failure=float(mean_lost @ self._middles / max(p_fail, 1e-9)),
            type=kinds.mean(0) * p_fail if self._typed else np.full(_TYPES, np.nan),
            imminent=float(mean_lost[:SOON].sum() * kinds[:, _COLLISION].mean()) if self._typed else float("nan"),
            dimension=_sigmoid(out[:, BINS + _TYPES :]).mean(0),
            spread=float(p_members.std()),
        )

    def save_state(self) -> dict[str, Array]:
        """`h` (E, U, 1): the hidden state of the GRUs."""
        return {"h": self._h.copy()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it; the hidden state of the policy is read afresh at the next step."""
        self._h[:] = state["h"]
        self._seen = None


def _edges(values: Array) -> tuple[int, ...]:
    edges = tuple(int(value) for value in np.ravel(values))
    if len(edges) != BINS + 1 or edges[0] != 0 or any(b <= a for a, b in pairwise(edges)):
        raise BundleError(f"The bins of a hazard are {BINS + 1} growing steps from 0; these are {edges}.")
    return edges


def _standardise(values: Array, missing: Array, mean: Array, scale: Array) -> None:
    """In place; what is `missing` counts as the mean of the training data."""
    if missing.any():
        values[missing] = mean[missing]
    values -= mean
    values *= scale
    if not np.isfinite(values).all():  # a value near the end of float32
        np.nan_to_num(values, copy=False, nan=0.0, posinf=5.0, neginf=-5.0)
    np.minimum(np.maximum(values, -5.0, out=values), 5.0, out=values)


def _sigmoid(x: Array) -> Array:
    """Logistic function through tanh: no overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x), np.float32)
