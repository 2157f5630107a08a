"""An episode run again from its key (bit-equal to the first time), looked at while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from failsight.core.contracts import Intervention
from failsight.core.types import Array, DecisionKind, EpisodeKey, Outcome
from failsight.runtime.bench import Bench

FRAMES = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One episode as pictures and curves."""

    frames: list[Array]
    """(256, 256, 3) uint8 at `steps`."""
    steps: list[int]
    p_fail: list[float]
    trigger: int | None
    acted: list[int]
    """Steps at which something other than the policy decided."""
    outcome: Outcome


def film(bench: Bench, key: EpisodeKey, intervention: Intervention | None, at: Sequence[int] | None = None) -> Film:
    """Run the episode and take pictures at the given steps (evenly spread when None)."""
    loop = replace(bench, intervention=intervention).loop()
    loop.start(key)
    everything: list[Array] = []
    while not loop.done:
        everything.append(bench.sim.render())  # type: ignore[attr-defined]
        loop.act(*loop.perceive())
    everything.append(bench.sim.render())  # type: ignore[attr-defined]
    last = len(everything) - 1
    steps = sorted({min(last, s) for s in at}) if at else [int(s) for s in np.linspace(0, last, FRAMES)]
    assert loop.trace.outcome is not None
    return Film(
        frames=[everything[s] for s in steps],
        steps=steps,
        p_fail=[r.p_fail for r in loop.trace.risks],
        trigger=loop.trace.trigger_step,
        acted=[i for i, kind in enumerate(loop.trace.kinds) if kind != DecisionKind.CONTINUE],
        outcome=loop.trace.outcome,
    )


def strip(frames: Sequence[Array], size: int = 128) -> Array:
    """Frames side by side, shrunk to `size` pixels by averaging, 4 px apart on white."""
    factor = frames[0].shape[0] // size
    small = [f.reshape(size, factor, size, factor, 3).mean((1, 3)).astype(np.uint8) for f in frames]
    gap = np.full((size, 4, 3), 255, np.uint8)
    parts = [part for image in small for part in (image, gap)]
    return np.concatenate(parts[:-1], axis=1)
