"""Why an alarm was raised, of any predictor: what it would have said had one part of its input looked as in a success.

Each part in turn (every signal, the hidden state) is replaced, from the first step on, by its median over the successful
episodes that were still running at that step. How far the judged figure falls is what the part weighs. Parts act
together, so the falls do not add up. Occlusion as in Zeiler and Fergus, 2014, with usual values in place of grey.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.types import Array
from failsight.evaluation.explain import Neighbour
from failsight.evaluation.judging import trace
from failsight.predictors.dataset import LabelledSequence

HIDDEN = "hidden state"
_TRACED = 60
"""Successes whose own curves say what is usual at a step."""

_WORTH_SAYING = 0.005


class Part(NamedTuple):
    """One part of the input."""

    name: str
    without: float
    """The judged figure with this part as usual."""
    fall: float
    """How much lower that is."""


class Occlusion(NamedTuple):
    """One step of one episode."""

    step: int
    judged: float
    parts: list[Part]
    """Those that weigh most first."""
    last_safe: int | None
    """Last step before it at which the judged figure was no higher than in the median success; None: never."""

    def sentence(self) -> str:
        """One line for a person."""
        weighty = [part for part in self.parts[:4] if part.fall >= _WORTH_SAYING]
        told = (
            ", ".join(f"{part.name} {part.without:.2f} ({-part.fall:+.2f})" for part in weighty) or "no one weighs much"
        )
        safe = "no step before it looked safe" if self.last_safe is None else f"last safe step {self.last_safe}"
        return f"step {self.step}: {self.judged:.2f}; with one part as in a success: {told}; {safe}"


def occlude(
    predictor: Predictor,
    names: Sequence[str],
    sequence: LabelledSequence,
    step: int,
    others: Sequence[LabelledSequence],
) -> Occlusion:
    """Explain the judged figure at `step`, as of that step, against other episodes of the run.

    Args: names: of the (T, S) signals, in order. others: of which the successes say what is usual; there must be one.
    """
    successes = [other for other in others if not other.failed]
    seen = _until(sequence, step)
    curve = trace(predictor, seen)
    changed = {
        name: replace(seen, signals=_with(seen.signals, column, usual_of([s.signals for s in successes], step + 1)))
        for column, name in enumerate(names)
    }
    if seen.hidden is not None:
        hidden = usual_of([s.hidden for s in successes if s.hidden is not None], step + 1)
        changed[HIDDEN] = replace(seen, hidden=hidden.astype(seen.hidden.dtype))
    parts = [_part(name, float(curve[-1]), float(trace(predictor, other)[-1])) for name, other in changed.items()]
    return Occlusion(
        step=step,
        judged=float(curve[-1]),
        parts=sorted(parts, key=lambda part: -part.fall),
        last_safe=_last_safe(curve, [trace(predictor, _until(s, step)) for s in successes[:_TRACED]]),
    )


def usual_of(arrays: Sequence[Array], steps: int) -> Array:
    """(steps, D) median at each step over the arrays (T_i, D) that reach it; beyond the longest its last value."""
    reached = range(min(steps, max(len(array) for array in arrays)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a signal that no success has stays missing
        rows = [
            np.nanmedian(np.stack([a[t] for a in arrays if len(a) > t]).astype(np.float64), axis=0) for t in reached
        ]
    return np.stack([*rows, *[rows[-1]] * (steps - len(rows))])


def alike(sequence: LabelledSequence, step: int, others: Sequence[LabelledSequence], count: int = 3) -> list[Neighbour]:
    """The episodes whose mean signals until `step` are closest, each signal in units of its spread over episodes."""
    running = [other for other in others if len(other.signals) > step]
    means = np.array([np.nanmean(other.signals[: step + 1], axis=0) for other in (sequence, *running)], np.float64)
    scaled = np.nan_to_num((means - np.nanmean(means, axis=0)) / np.maximum(np.nanstd(means, axis=0), 1e-9))
    distance = np.linalg.norm(scaled[1:] - scaled[0], axis=1)
    return [
        Neighbour(running[i].ticket, running[i].task, running[i].failed, float(distance[i]))
        for i in np.argsort(distance, kind="stable")[:count]
    ]


def _until(sequence: LabelledSequence, step: int) -> LabelledSequence:
    hidden = None if sequence.hidden is None else sequence.hidden[: step + 1]
    return replace(sequence, signals=sequence.signals[: step + 1], hidden=hidden)


def _with(signals: Array, column: int, usual: Array) -> Array:
    changed = signals.copy()
    changed[:, column] = usual[: len(signals), column]
    return changed


def _part(name: str, judged: float, without: float) -> Part:
    return Part(name, without, judged - without)


def _last_safe(curve: Array, usual: Sequence[Array]) -> int | None:
    medians = usual_of([row[:, None] for row in usual], len(curve))[:, 0]
    safe = np.flatnonzero(curve[:-1] <= medians[:-1])
    return int(safe[-1]) if len(safe) else None
