"""From signals and hidden state to network inputs: log for heavy tails, standardise, mask what is missing, clip."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array
from failsight.predictors.missing import present
from failsight.signals.bank import SIGNAL_NAMES

_LOG = ("epistemic_spread", "action_variance", "max_joint_variance", "command_residual", "slip", "overlap")
_CLIP = 5.0


def log_mask(names: Sequence[str]) -> Array:
    """(S,) bool: signals of failsight's own whose logarithm is taken, by name."""
    return np.array([name in _LOG for name in names], bool)


LOG_MASK = log_mask(SIGNAL_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whitening:
    """Per-feature mean and scale of [signals, hidden], from training episodes only."""

    mean: Array
    """(S + D,) float32."""
    scale: Array
    """(S + D,) float32, 1 / standard deviation."""
    signals: int
    """S; the rest is the hidden state."""
    log: Array
    """(S,) bool, signals whose logarithm is taken."""

    @property
    def hidden(self) -> int:
        """D."""
        return len(self.mean) - self.signals

    @staticmethod
    def fit(signals: Array, hidden: Array | None, log: Array | None = None) -> Whitening:
        """From stacked training steps (N, S) and (N, D); a feature that never varies gets scale 0.

        `log` (S,) says which signals to take the logarithm of; by default what `SIGNAL_NAMES` asks for.
        """
        mask = LOG_MASK[: signals.shape[1]] if log is None else log
        parts = [log_signals(signals, mask)]
        if hidden is not None:
            parts.append(hidden.astype(np.float64))
        means, scales = [], []
        for part in parts:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a signal the policy never gives is all NaN
                mean, deviation = np.nanmean(present(part), 0), np.nanstd(present(part), 0)
            means.append(np.nan_to_num(mean))
            scales.append(np.where(np.nan_to_num(deviation) > 1e-6, 1 / np.maximum(deviation, 1e-6), 0.0))
        return Whitening(
            mean=np.concatenate(means).astype(np.float32),
            scale=np.concatenate(scales).astype(np.float32),
            signals=signals.shape[1],
            log=mask,
        )

    def apply(self, signals: Array, hidden: Array | None) -> Array:
        """(..., S + D) float32 inputs; what is not finite becomes 0, the mean of the training data.

        Raises EpisodeDataError for a hidden state that is missing or of another size.
        """
        raw = np.empty((*signals.shape[:-1], len(self.mean)), np.float32)
        raw[..., : self.signals] = log_signals(signals, self.log)
        if self.hidden:
            if hidden is None or hidden.shape[-1] != self.hidden:
                found = "none" if hidden is None else str(hidden.shape[-1])
                raise EpisodeDataError(
                    f"This predictor needs a hidden state of size {self.hidden}; the policy gives {found}."
                )
            raw[..., self.signals :] = hidden
        return self.standardise(raw)

    def standardise(self, raw: Array) -> Array:
        """(..., S + D) in place: what is missing takes the mean, then standardise and clip."""
        missing = ~np.isfinite(raw)
        with np.errstate(invalid="ignore", over="ignore"):  # a value near the end of float32 is clipped next
            raw -= self.mean
            raw *= self.scale
        raw[missing] = 0.0
        np.nan_to_num(raw, copy=False, nan=0.0, posinf=_CLIP, neginf=-_CLIP)
        return np.clip(raw, -_CLIP, _CLIP, out=raw)


def log_signals(signals: Array, mask: Array) -> Array:
    """log(x + 1e-4) of the signals marked in `mask` (S,), the others unchanged; (..., S) float64, infinities missing."""
    values = present(signals).astype(np.float64)
    values[..., mask] = np.log(np.maximum(values[..., mask], 0.0) + 1e-4)
    return values
