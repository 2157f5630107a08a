"""Actions and states to about [-1, 1] and back; every constant is recorded in the checkpoint.

Frameworks differ in epsilon and clipping (OpenVLA adds 1e-8 and clips, LeRobot clips nothing), so both are data here.
Binary dimensions pass through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from failsight.core.errors import FailsightError, UnknownNameError
from failsight.core.types import Array
from failsight.policies.vla.design import Scheme

EPSILON = 1e-8


def statistics(actions: Array, states: Array, clip: bool = True) -> dict[str, Any]:
    """q01, q99, min, max, mean and std of (N, A) actions and (N, S) states, JSON-able."""
    return {
        "action": _columns(actions),
        "state": _columns(states),
        "clip": clip,
        "epsilon": EPSILON,
        "frames": len(actions),
    }


def _columns(values: Array) -> dict[str, list[float]]:
    if values.shape[1] == 0:
        return {name: [] for name in ("q01", "q99", "min", "max", "mean", "std")}
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    table = {"q01": low, "q99": high, "min": values.min(0), "max": values.max(0)}
    table |= {"mean": values.mean(0), "std": values.std(0)}
    return {name: [float(v) for v in column] for name, column in table.items()}


class Normaliser:
    """One scheme over one vector."""

    def __init__(self, scheme: Scheme, table: Mapping[str, Any], clip: bool, epsilon: float, keep: Array) -> None:
        """`keep` (D,) bool: entries that pass through. Raises UnknownNameError for an unknown scheme."""
        if scheme not in get_args(Scheme):
            raise UnknownNameError("normalisation", scheme, get_args(Scheme))
        size = len(keep)
        offset, scale = np.zeros(size), np.ones(size)
        if scheme == "mean-std":
            offset, scale = np.array(table["mean"]), np.array(table["std"])
        elif scheme != "identity":
            names = ("q01", "q99") if scheme == "q01q99" else ("min", "max")
            low, high = (np.array(table[name]) for name in names)
            offset, scale = (low + high) / 2, (high - low) / 2
        if size and len(offset) != size:
            raise FailsightError(f"The statistics have {len(offset)} entries and the vector has {size}.")
        unused = scale < 1e-6
        self._offset = np.where(keep, 0.0, offset).astype(np.float32)
        self._scale = np.where(keep | unused, 1.0, scale + epsilon).astype(np.float32)
        self._clip = clip and scheme in ("q01q99", "min-max")

    def forward(self, values: Array) -> Array:
        """Physical -> normalised, (..., D) float32."""
        out = (np.asarray(values, np.float32) - self._offset) / self._scale
        return np.clip(out, -1, 1) if self._clip else out

    def backward(self, values: Array) -> Array:
        """Normalised -> physical."""
        return np.asarray(values * self._scale + self._offset, np.float32)
