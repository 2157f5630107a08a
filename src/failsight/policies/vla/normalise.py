"""Actions and states to about [-1, 1] and back; every constant is recorded in the checkpoint.

Thresholds are relative to the data, so that another unit changes nothing: a column that moves in fewer frames than the
quantiles see (a gripper that opens once) is scaled by its minimum and maximum, one that does not move at all by 1.
Frameworks differ in epsilon and clipping (OpenVLA adds 1e-8 and clips, LeRobot clips nothing), so both are data here.
Binary dimensions pass through. Checkpoints written before these rules have no `low`, `high` and `still`, and keep the
constants they were trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from failsight.core.errors import EpisodeDataError, FailsightError, UnknownNameError
from failsight.core.types import Array
from failsight.policies.vla.design import Scheme, VLAConfig

EPSILON = 0.0
"""Added to every scale; not needed where still columns are known by name."""
RARE = 0.05
"""Quantiles that span less than this share of a column's range miss what it does rarely; then the range itself counts."""
STILL = 1e-6
"""A range below this share of the values' own size is rounding: the column does not move."""
SPREAD = 20.0
"""A standardised value is at most this large in training: the deviation is at least the range over it."""


def statistics(actions: Array, states: Array, clip: bool = True) -> dict[str, Any]:
    """Statistics of (N, A) actions and (N, S) states in float64, JSON-able.

    q01, q99, min, max, mean, std; `low` and `high`: what q01q99 maps to -1 and 1; `still`: what does not move.
    Raises EpisodeDataError without frames, or when a value is not finite.
    """
    if not len(actions):
        raise EpisodeDataError("There are no frames to train on; hold fewer scenarios out.")
    return {
        "action": _columns(actions, "action"),
        "state": _columns(states, "state"),
        "clip": clip,
        "epsilon": EPSILON,
        "frames": len(actions),
    }


def _columns(values: Array, what: str) -> dict[str, list[Any]]:
    rows = [_column(values[:, i], f"{what} {i}") for i in range(values.shape[1])]
    return {name: [row[name] for row in rows] for name in _NAMES}


def _column(values: Array, where: str) -> dict[str, Any]:
    column = np.asarray(values, np.float64)
    if not np.isfinite(column).all():
        raise EpisodeDataError(
            f"{where} is {column[~np.isfinite(column)][0]} in frame {np.argmin(np.isfinite(column))}."
        )
    low, high = (float(v) for v in np.quantile(column, [0.01, 0.99]))
    least, most = float(column.min()), float(column.max())
    rare = high - low < RARE * (most - least)
    return {
        "q01": low,
        "q99": high,
        "min": least,
        "max": most,
        "mean": float(column.mean()),
        "std": float(column.std()),
        "low": least if rare else low,
        "high": most if rare else high,
        "still": most - least <= STILL * max(abs(least), abs(most)),
    }


_NAMES = ("q01", "q99", "min", "max", "mean", "std", "low", "high", "still")


class Normaliser:
    """One scheme over one vector."""

    def __init__(self, scheme: Scheme, table: Mapping[str, Any], clip: bool, epsilon: float, keep: Array) -> None:
        """`keep` (D,) bool: entries that pass through. Raises UnknownNameError for an unknown scheme."""
        if scheme not in get_args(Scheme):
            raise UnknownNameError("normalisation", scheme, get_args(Scheme))
        size = len(keep)
        offset, scale = _constants(scheme, table, size)
        if size and len(offset) != size:
            raise FailsightError(f"The statistics have {len(offset)} entries and the vector has {size}.")
        unused = np.array(table["still"], bool) if "still" in table else scale < 1e-6
        self._offset = np.where(keep, 0.0, offset).astype(np.float32)
        self._scale = np.where(keep | unused, 1.0, scale + epsilon).astype(np.float32)
        limit = np.where(keep, np.inf, 1.0) if clip and scheme in ("q01q99", "min-max") else np.full(size, np.inf)
        self._low, self._high = (-limit).astype(np.float32), limit.astype(np.float32)

    def within(self, low: Array, high: Array) -> Normaliser:
        """Let nothing outside physical limits (D,), (D,) through; returns itself."""
        self._low, self._high = (
            np.asarray((np.asarray(v) - self._offset) / self._scale, np.float32) for v in (low, high)
        )
        return self

    def forward(self, values: Array) -> Array:
        """Physical -> normalised, (..., D) float32."""
        out = (np.asarray(values, np.float32) - self._offset) / self._scale
        return np.asarray(np.clip(out, self._low, self._high))

    def backward(self, values: Array) -> Array:
        """Normalised -> physical, (..., D) float32."""
        return np.asarray(values * self._scale + self._offset, np.float32)


def _constants(scheme: Scheme, table: Mapping[str, Any], size: int) -> tuple[Array, Array]:
    """Offset and scale of every entry."""
    if scheme == "identity":
        return np.zeros(size), np.ones(size)
    if scheme == "mean-std":
        return np.array(table["mean"], np.float64), np.array(table["std"], np.float64)
    names = ("min", "max") if scheme == "min-max" else ("low", "high") if "low" in table else ("q01", "q99")
    low, high = (np.array(table[name], np.float64) for name in names)
    return (low + high) / 2, (high - low) / 2


def state_normaliser(table: Mapping[str, Any], size: int) -> Normaliser:
    """States are always standardised; an entry never goes further than its own range beyond what training saw.

    `table`: the state's statistics. Older ones have a floor of 0.02 instead.
    """
    keep = np.zeros(size, bool)
    if "still" not in table:
        return Normaliser("mean-std", {**table, "std": [max(s, 0.02) for s in table["std"]]}, False, 0.0, keep)
    low, high = (np.array(table[name], np.float64) for name in ("min", "max"))
    floored = np.maximum(table["std"], (high - low) / SPREAD)
    made = Normaliser("mean-std", {**table, "std": floored}, False, 0.0, keep)
    return made.within(2 * low - high, 2 * high - low)


def states_of(config: VLAConfig) -> Normaliser:
    """How the states of a policy are normalised."""
    return state_normaliser(config.statistics["state"], len(config.observation_spec.state))
