"""What networks and distances on logs are fed: standardised signals, their moving average, hidden state, time, task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from failsight.core.errors import BundleError
from failsight.core.types import Array
from failsight.predictors.dataset import LabelledSequence
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
    average: bool = False
    """Also the signals' exponential moving average with rate 1/3."""
    hidden: bool = False
    components: int = 0
    """Principal components of the hidden state; 0: all its dimensions, standardised one by one."""
    centre_tasks: bool = False
    time: bool = False
    clip: float = 5.0


class InputStream:
    """Turns raw steps into network inputs; also side by side for many episodes (..., S)."""

    def __init__(self, arrays: Mapping[str, Array], design: InputDesign) -> None:
        """Args: arrays: `in.columns`, `in.log`, `in.mean`, `in.scale`, `in.basis` (C, D), `in.centre` (C,),
        `in.offset.<task>`, as far as the design needs them.
        """
        self._arrays, self._design = arrays, design
        self.hidden_size = int(arrays["in.hidden"]) if design.hidden else 0
        self.width = int(arrays["in.width"])
        self.reset("")

    def reset(self, task: str) -> None:
        """Start an episode."""
        self._step = 0
        self._average: Array | None = None
        self._offset = self._arrays.get(f"in.offset.{task}") if self._design.centre_tasks else None

    def update(self, signals: Array, hidden: Array | None) -> Array:
        """(width,) float32."""
        parts: list[Array] = []
        features = self._raw(signals, hidden)
        if self._offset is not None:
            features = features - self._offset
        features = _limit(features, self._design.clip)
        parts.append(features)
        if self._design.average:
            last = np.zeros_like(features) if self._average is None else self._average
            self._average = last + _EMA * (features - last)
            parts.append(self._average)
        if self._design.time:
            parts.append(np.array([self._step / _CLOCK]))
        self._step += 1
        return np.concatenate(parts).astype(np.float32)

    def _raw(self, signals: Array, hidden: Array | None) -> Array:
        arrays, parts = self._arrays, []
        if self._design.signals:
            values = log_positive(signals, arrays["in.log"])[arrays["in.columns"]]
            parts.append((values - arrays["in.mean"]) * arrays["in.scale"])
        if self._design.hidden:
            if hidden is None or len(hidden) != self.hidden_size:
                found = "none" if hidden is None else str(len(hidden))
                raise BundleError(f"This detector needs a hidden state of size {self.hidden_size}; it got {found}.")
            if "in.basis" in arrays:
                parts.append(arrays["in.basis"] @ hidden.astype(np.float32) - arrays["in.centre"])
            else:
                parts.append((hidden.astype(np.float32) - arrays["in.centre"]) * arrays["in.spread"])
        return np.concatenate(parts) if parts else np.zeros(0)

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode."""
        state = {"in.step": np.array(self._step)}
        return state if self._average is None else {**state, "in.average": self._average.copy()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it, after `reset` with the task of the episode."""
        self._step = int(state["in.step"])
        self._average = state["in.average"].copy() if "in.average" in state else None


def _limit(values: Array, clip: float) -> Array:
    return np.asarray(np.clip(np.nan_to_num(values, nan=0.0, posinf=clip, neginf=-clip), -clip, clip))


def fit_inputs(train: Sequence[LabelledSequence], columns: Sequence[str], design: InputDesign) -> dict[str, Array]:
    """Statistics of the training episodes for `InputStream`."""
    arrays: dict[str, Array] = {}
    width = 0
    if design.signals:
        raw = pad([s.signals for s in train])
        log = positive_columns(raw)
        chosen = np.array([i for i, name in enumerate(columns) if not design.only or name in design.only], int)
        flat = log_positive(np.concatenate([s.signals for s in train]), log)[:, chosen]
        flat = np.where(np.isfinite(flat), flat, np.nan)
        seen = np.isfinite(flat).sum(0) > 1
        mean, spread = np.zeros(len(chosen)), np.zeros(len(chosen))
        mean[seen], spread[seen] = np.nanmean(flat[:, seen], 0), np.nanstd(flat[:, seen], 0)
        scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-9)
        arrays |= {"in.log": log, "in.columns": chosen, "in.mean": mean, "in.scale": scale}
        width += len(chosen)
    if design.hidden:
        stacked = np.concatenate([np.asarray(s.hidden, np.float32) for s in train])
        stacked = np.nan_to_num(stacked, posinf=0.0, neginf=0.0)
        centre = stacked.mean(0)
        arrays["in.hidden"] = np.array(stacked.shape[1])
        if design.components:
            basis = whitening(stacked - centre, design.components)
            arrays |= {"in.basis": basis, "in.centre": basis @ centre}
            width += len(basis)
        else:
            spread = stacked.std(0)
            inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
            arrays |= {"in.centre": centre, "in.spread": inverse}
            width += len(centre)
    arrays["in.width"] = np.array(width * (1 + design.average) + design.time)
    if design.centre_tasks:
        arrays |= _offsets(train, arrays, design)
    return arrays


def _offsets(train: Sequence[LabelledSequence], arrays: dict[str, Array], design: InputDesign) -> dict[str, Array]:
    """Mean input of every task, shrunken by 3 episodes."""
    plain = InputDesign(signals=design.signals, hidden=design.hidden, components=design.components, clip=design.clip)
    stream = InputStream({**arrays, "in.width": np.array(0)}, plain)
    sums: dict[str, list[Array]] = {}
    for s in train:
        stream.reset(s.task)
        rows = [stream.update(s.signals[t], None if s.hidden is None else s.hidden[t]) for t in range(len(s.signals))]
        sums.setdefault(s.task, []).append(np.mean(rows, 0))
    return {f"in.offset.{task}": np.sum(means, 0) / (len(means) + 3) for task, means in sums.items()}


def episode_inputs(
    sequences: Sequence[LabelledSequence], arrays: Mapping[str, Array], design: InputDesign
) -> list[Array]:
    """Inputs of whole episodes, [(T, width)], by the streaming code."""
    stream, result = InputStream(arrays, design), []
    for s in sequences:
        stream.reset(s.task)
        rows = [stream.update(s.signals[t], None if s.hidden is None else s.hidden[t]) for t in range(len(s.signals))]
        result.append(np.stack(rows))
    return result
