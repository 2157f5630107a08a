"""What networks and novelty scores on logs are fed: standardised signals and hidden state, their average, time, task.

Features are the logarithms of positive signals, the others as they are, and the hidden state (whole, or projected on its
principal axes). They are standardised over all training steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from failsight.core.errors import BundleError
from failsight.core.types import Array
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.missing import filled, present, usual_values
from failsight.predictors.stepscale import StepScale, task_offsets
from failsight.predictors.transforms import log_positive, pad, positive_columns, whitening

_EMA = 1 / 3
_CLOCK = 100.0
"""Steps per unit of the time input, as in ActProbe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputDesign:
    """Which inputs a detector reads."""

    signals: bool = True
    only: tuple[str, ...] = ()
    """Names of the signals to read; empty: all."""
    logarithm: bool = True
    """Signals that are never negative as their logarithm."""
    average: bool = False
    """Also the inputs' exponential moving average with rate 1/3."""
    hidden: bool = False
    components: int = 0
    """Principal components of the hidden state; 0: all its dimensions."""
    centre_tasks: bool = False
    """Remove a known task's mean over all steps, shrunken by 3 episodes (per step was worse on unknown tasks)."""
    time: bool = False
    clip: float = 5.0


class InputStream:
    """Turns raw steps into network inputs."""

    def __init__(self, arrays: Mapping[str, Array], design: InputDesign) -> None:
        """Args: arrays: `in.columns`, `in.log`, `in.hidden` (), `in.basis` (C, D), `in.usual` (D,), `in.mean` and `in.scale` (1, F),
        `in.offset.<task>` (1, F), `in.width` (), as far as the design needs them.
        """
        self._arrays, self._design = arrays, design
        self.hidden_size = int(arrays["in.hidden"]) if design.hidden else 0
        self.width = int(arrays["in.width"])
        self._scale = StepScale(arrays["in.mean"], arrays["in.scale"])
        self.reset("")

    def reset(self, task: str, offset: Array | None = None) -> None:
        """Start an episode; `offset` (1, F) stands in for the task's (a training episode's own one, without itself)."""
        self._step = 0
        self._average: Array | None = None
        self._offset = offset
        if offset is None and self._design.centre_tasks:
            self._offset = self._arrays.get(f"in.offset.{task}")

    def update(self, signals: Array, hidden: Array | None) -> Array:
        """(width,) float32 from `signals` (S,), `hidden` (D,). Raises BundleError for hidden states of another size."""
        z = self._scale.apply(self.features(signals, hidden), self._step)
        if self._offset is not None:
            z = z - self._offset[min(self._step, len(self._offset) - 1)]
        z = _limit(z, self._design.clip)
        parts: list[Array] = [z]
        if self._design.average:
            last = np.zeros_like(z) if self._average is None else self._average
            self._average = last + _EMA * (z - last)
            parts.append(self._average)
        if self._design.time:
            parts.append(np.array([self._step / _CLOCK]))
        self._step += 1
        return np.concatenate(parts).astype(np.float32)

    def features(self, signals: Array, hidden: Array | None) -> Array:
        """(F,) before standardising. Raises BundleError for a hidden state that is missing or of another size."""
        arrays, parts = self._arrays, []
        if self._design.signals:
            parts.append(log_positive(signals, arrays["in.log"])[arrays["in.columns"]])
        if self._design.hidden:
            if hidden is None or len(hidden) != self.hidden_size:
                found = "none" if hidden is None else str(len(hidden))
                raise BundleError(f"This detector needs a hidden state of size {self.hidden_size}; it got {found}.")
            basis = arrays.get("in.basis")
            parts.append(
                present(hidden.astype(np.float32)) if basis is None else basis @ filled(hidden, arrays["in.usual"])
            )
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode: `in.step` (), and `in.average` (F,) where the design has one."""
        state = {"in.step": np.array(self._step)}
        return state if self._average is None else {**state, "in.average": self._average.copy()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it, after `reset` with the task of the episode."""
        self._step = int(state["in.step"])
        self._average = state["in.average"].copy() if "in.average" in state else None


def _limit(values: Array, clip: float) -> Array:
    return np.asarray(np.clip(np.nan_to_num(values, nan=0.0, posinf=clip, neginf=-clip), -clip, clip))


class FittedInputs(NamedTuple):
    """Statistics for `InputStream`, and the inputs of the training episodes [(T, width)]."""

    arrays: dict[str, Array]
    inputs: list[Array]


def fit_inputs(train: Sequence[LabelledSequence], columns: Sequence[str], design: InputDesign) -> FittedInputs:
    """From training episodes; on known tasks each gets the offset of the others."""
    arrays = _feature_arrays(train, columns, design)
    bare = InputStream({**arrays, "in.mean": np.zeros((1, 1)), "in.scale": np.ones((1, 1))}, design)
    features = [np.stack([bare.features(s.signals[t], _hidden(s, t)) for t in range(len(s.signals))]) for s in train]
    scale = _scale(features)
    arrays |= {"in.mean": scale.mean, "in.scale": scale.scale}
    own: Array | None = None
    if design.centre_tasks:
        z = [np.stack([scale.apply(row, t) for t, row in enumerate(f)]) for f in features]
        means = np.stack([_limit(rows, design.clip).mean(0, keepdims=True) for rows in z])
        offsets, own = task_offsets(means, np.array([s.task for s in train]))
        arrays |= {f"in.offset.{task}": value for task, value in offsets.items()}
    width = features[0].shape[1]
    arrays["in.width"] = np.array(width * (1 + design.average) + design.time)
    return FittedInputs(arrays, episode_inputs(train, arrays, design, own))


def _feature_arrays(train: Sequence[LabelledSequence], columns: Sequence[str], design: InputDesign) -> dict[str, Array]:
    arrays: dict[str, Array] = {"in.width": np.array(0)}
    if design.signals:
        arrays["in.log"] = positive_columns(pad([s.signals for s in train])) & design.logarithm
        chosen = [i for i, name in enumerate(columns) if not design.only or name in design.only]
        arrays["in.columns"] = np.array(chosen, int)
    if design.hidden:
        raw = np.concatenate([np.asarray(s.hidden, np.float32) for s in train])
        arrays["in.usual"] = usual_values(raw).astype(np.float32)
        stacked = filled(raw, arrays["in.usual"])
        arrays["in.hidden"] = np.array(stacked.shape[1])
        if design.components:
            arrays["in.basis"] = whitening(stacked - stacked.mean(0), design.components)
    return arrays


def _scale(features: list[Array]) -> StepScale:
    stacked = np.concatenate(features).astype(np.float64)
    seen = np.isfinite(stacked).sum(0) > 1
    mean, spread = np.zeros(stacked.shape[1]), np.zeros(stacked.shape[1])
    mean[seen], spread[seen] = np.nanmean(stacked[:, seen], 0), np.nanstd(stacked[:, seen], 0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    return StepScale(mean[None], scale[None])


def _hidden(s: LabelledSequence, t: int) -> Array | None:
    return None if s.hidden is None else s.hidden[t]


def episode_inputs(
    sequences: Sequence[LabelledSequence],
    arrays: Mapping[str, Array],
    design: InputDesign,
    offsets: Array | None = None,
) -> list[Array]:
    """Inputs of whole episodes, [(T, width)], by the streaming code; `offsets` (N, 1, F) one for each episode."""
    stream, result = InputStream(arrays, design), []
    for i, s in enumerate(sequences):
        stream.reset(s.task, None if offsets is None else offsets[i])
        result.append(np.stack([stream.update(s.signals[t], _hidden(s, t)) for t in range(len(s.signals))]))
    return result
