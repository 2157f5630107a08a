"""Running evidence: from standardised inputs to slowly moving statistics that start at nothing.

For every input z (standardised among episodes still running at the same step), after t steps:

    shrunken mean     sqrt(k) * sum z / (t + k)
    fast and slow     exponential moving averages with rates 1/3 and 1/8
    energy            sqrt(k) * sum min(z^2 - 1, 4) / (t + k)

All start at 0 and the shrunken ones stay near 0 until enough has been seen, so the first steps, which differ by scene,
cannot dominate an episode's maximum.
"""

from __future__ import annotations

import numpy as np

from failsight.core.types import Array

CLIP = 4.0
_FAST, _SLOW = 1 / 3, 1 / 8


class RunningEvidence:
    """Constant memory; the same code runs one episode (S,) or many side by side (N, S)."""

    def __init__(self, shape: tuple[int, ...], shrink: float, energy: bool) -> None:
        """Args: shape: of one input; shrink: k, in steps; energy: also the energy (else 2 statistics per input)."""
        self._k, self._energy = float(shrink), energy
        self._sum, self._fast = np.zeros(shape), np.zeros(shape)
        self._slow, self._square = np.zeros(shape), np.zeros(shape)
        self._steps = 0

    @staticmethod
    def width(inputs: int, energy: bool) -> int:
        """Statistics for that many inputs."""
        return inputs * (4 if energy else 2)

    def update(self, z: Array) -> Array:
        """One more step of inputs (..., S) -> statistics (..., 4 S) or (..., 2 S)."""
        self._steps += 1
        self._sum += z
        self._fast += _FAST * (z - self._fast)
        scale = np.sqrt(self._k) / (self._steps + self._k)
        if not self._energy:
            return np.concatenate([scale * self._sum, self._fast], axis=-1)
        self._slow += _SLOW * (z - self._slow)
        self._square += np.minimum(z * z - 1, 4.0)
        return np.concatenate([scale * self._sum, self._slow, self._fast, scale * self._square], axis=-1)

    def save_state(self) -> Array:
        """(5, ...) everything it remembers."""
        return np.stack([self._sum, self._fast, self._slow, self._square, np.full(self._sum.shape, float(self._steps))])

    def load_state(self, state: Array) -> None:
        """Inverse of `save_state`, (5, ...)."""
        self._sum, self._fast, self._slow, self._square = (part.copy() for part in state[:4])
        self._steps = int(state[4].flat[0]) if state[4].size else 0


def clipped(z: Array) -> Array:
    """Standardised values (...) within +-4; what is missing carries no evidence: 0, the usual value."""
    return np.asarray(np.clip(np.nan_to_num(z, nan=0.0, posinf=CLIP, neginf=-CLIP), -CLIP, CLIP))
