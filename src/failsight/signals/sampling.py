"""Signals of several drawn chunks, for the published sampling detectors; all causal, recomputed at each inference.

| name | meaning | source |
|---|---|---|
| stac | squared MMD (Gaussian kernel, beta 1) between this and the last set of samples where both plan | Agia et al. 2024, arXiv 2410.04640 |
| cluster_entropy | entropy of the sizes of the clusters the samples fall into (bits) | baseline of SAFE, arXiv 2506.09937 |
| action_entropy | entropy of the samples' end positions on a grid, mean over the chunk (bits) | ACE of FIPER, arXiv 2510.09459 |
| token_nll | - log probability of the action tokens | baseline of SAFE |

They are not part of the bank that the default predictor reads: they cost sampling, and buy it nothing it lacks. NaN where
the policy draws no samples or states no probability.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from failsight.core.specs import Access, ActionSpec, SignalColumn
from failsight.core.types import Array, Step

_NEAR = 0.25
"""Samples closer than this (root mean square per entry, in units of action) belong to one cluster."""
_CELL = 0.03
"""Side of a grid cell, as a share of the distance a chunk could cover."""


class SamplingSignals:
    """Streaming implementation; positions are sums of the first three moving dimensions."""

    names = ("stac", "cluster_entropy", "action_entropy", "token_nll")
    units = ("1", "bit", "bit", "nat")

    def __init__(self, actions: ActionSpec) -> None:
        self._moving = np.flatnonzero(actions.scalable)
        self.reset()

    def reset(self) -> None:
        """Forget the episode."""
        self._last: Array | None = None
        self._executed = 0
        self._values = np.full(len(self.names), np.nan)

    def update(self, step: Step, out: Array) -> None:
        """Write the four values into `out`."""
        if step.replan:
            self._refresh(step)
            self._executed = 0
        self._executed = step.cursor + 1
        out[:] = self._values

    def _refresh(self, step: Step) -> None:
        output = step.output
        self._values[3] = np.nan if output.log_prob is None else -output.log_prob
        if output.samples is None:
            self._values[:3], self._last = np.nan, None
            return
        samples = output.samples[:, :, self._moving].astype(np.float64)
        self._values[0] = 0.0 if self._last is None else _overlap_mmd(self._last, samples, self._executed)
        self._values[1] = _cluster_entropy(samples)
        self._values[2] = _grid_entropy(samples[..., :3])
        self._last = samples

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode: `values` (4,), `since` (), and `last` (K, H, M) of the M moving dimensions."""
        state = {"values": self._values.copy(), "since": np.array(self._executed)}
        return state if self._last is None else {**state, "last": self._last.copy()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it."""
        self._values, self._executed = state["values"].copy(), int(state["since"])
        self._last = state["last"].copy() if "last" in state else None


SAMPLING_COLUMNS = tuple(
    SignalColumn(name=name, unit=unit, access=Access.SAMPLES)
    for name, unit in zip(SamplingSignals.names, SamplingSignals.units, strict=True)
)


def _overlap_mmd(last: Array, samples: Array, executed: int) -> float:
    """Squared maximum mean discrepancy of both sets over the steps both plan; 0 when they share none."""
    shared = last.shape[1] - executed
    if shared <= 0:
        return 0.0
    a = last[:, executed:].reshape(len(last), -1)
    b = samples[:, :shared].reshape(len(samples), -1)
    return float(_kernel(a, a) + _kernel(b, b) - 2 * _kernel(a, b))


def _kernel(a: Array, b: Array) -> float:
    square = ((a[:, None] - b[None]) ** 2).sum(-1)
    return float(np.exp(-square).mean())


def _cluster_entropy(samples: Array) -> float:
    flat = samples.reshape(len(samples), -1)
    near = ((flat[:, None] - flat[None]) ** 2).mean(-1) <= _NEAR**2
    label = np.arange(len(flat))
    for _ in range(len(flat)):  # single linkage: labels spread along chains of near samples
        spread = np.where(near, label[None], len(flat)).min(1)
        if (spread == label).all():
            break
        label = spread
    return _entropy(np.unique(label, return_counts=True)[1])


def _grid_entropy(steps: Array) -> float:
    """Mean over the chunk of the entropy of cells occupied by the K samples; (K, H, 3) -> bits."""
    cells = np.floor(steps.cumsum(1) / (_CELL * 2 * steps.shape[1])).astype(int)
    counts = (np.unique(cells[:, h], axis=0, return_counts=True)[1] for h in range(cells.shape[1]))
    return float(np.mean([_entropy(c) for c in counts]))


def _entropy(counts: Array) -> float:
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum() + 0.0)
