"""Whether a robot does what it is told: the next state as a linear answer to state and command, and what is left over.

Learned from the first steps of successful episodes, so it needs no model of the robot and no names of its dimensions.
Noise between command and motion, a slack joint or a dragging cable leave more than ordinary episodes do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from failsight.core.foreign import read_array
from failsight.core.types import Array

TICKS = 12
"""Steps after which it is judged."""
_FLOOR = 1e-3
"""Share of a dimension's own motion below which what is left over says nothing."""
_RIDGE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """How a robot usually answers."""

    weights: Array
    """(F, S) float32: features of state and commands -> change of the state."""
    whiten: Array
    """(S, S) float32: makes what is left over in ordinary episodes one in every direction."""

    def surprise(self, states: Array, actions: Array) -> Array:
        """(T,) how far each change of states (T + 1, S) under actions (T, A) is from the usual answer."""
        left = np.diff(states, axis=0) - _features(states, actions) @ self.weights
        result: Array = np.sqrt(((left @ self.whiten) ** 2).mean(1))
        return result

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"weights": self.weights.tolist(), "whiten": self.whiten.tolist()}

    @staticmethod
    def from_dict(data: Mapping[str, Any], where: str, states: int, actions: int) -> Response:
        """Inverse of `as_dict`. Raises EpisodeDataError when it is about other states or actions."""
        rows = 2 * states + actions + 1
        return Response(
            weights=read_array(data["weights"], f"{where}, weights", (rows, states)),
            whiten=read_array(data["whiten"], f"{where}, whiten", (states, states)),
        )


def response_of(episodes: Sequence[tuple[Array, Array]]) -> Response:
    """From states (T + 1, S) and actions (T, A) of the beginnings of successful episodes."""
    features = np.concatenate([_features(states, actions) for states, actions in episodes])
    changes = np.concatenate([np.diff(states, axis=0) for states, _ in episodes]).astype(np.float64)
    scale = features.std(0)
    scale[scale < 1e-9] = np.inf  # what never changes explains nothing that the last column does not
    scale[-1] = 1.0
    scaled = features / scale
    gram = scaled.T @ scaled + _RIDGE * len(scaled) * np.eye(scaled.shape[1])
    weights = np.linalg.solve(gram, scaled.T @ changes) / scale[:, None]
    left = changes - features @ weights
    floor = np.maximum(_FLOOR * changes.std(0), 1e-9)
    values, axes = np.linalg.eigh(left.T @ left / len(left) + np.diag(floor**2))
    whiten = axes / np.sqrt(values) @ axes.T
    return Response(weights=weights.astype(np.float32), whiten=whiten.astype(np.float32))


def _features(states: Array, actions: Array) -> Array:
    """(T, 2 S + A + 1) what may explain the changes of states (T + 1, S) under actions (T, A)."""
    now = states[:-1].astype(np.float64)
    before = np.concatenate([np.zeros((1, now.shape[1])), np.diff(now, axis=0)])
    return np.concatenate([now, before, actions, np.ones((len(now), 1))], 1)
