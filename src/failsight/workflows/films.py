"""An episode run again from its key (bit-equal to the first time), looked at while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from failsight.core.contracts import Intervention, Sim
from failsight.core.errors import RenderingError
from failsight.core.types import Array, DecisionKind, EpisodeKey, Outcome
from failsight.runtime.bench import Bench

FRAMES = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One episode as pictures and curves."""

    frames: list[Array]
    """(H, W, 3) uint8 at `steps`."""
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


def cannot_draw(sim: Sim, key: EpisodeKey) -> str:
    """Why a simulator gives no pictures of an episode; empty when it does."""
    if not callable(getattr(sim, "render", None)):
        return "the simulator has no render()"
    try:
        sim.reset(options={"key": key})
        picture = sim.render()  # type: ignore[attr-defined]
    except (NotImplementedError, RenderingError) as error:
        return f"the simulator draws nothing ({error or type(error).__name__})"
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
        return ""
    return f"its render() gives no (H, W, 3) uint8 picture but {type(picture).__name__} {np.shape(picture)}"


def strip(frames: Sequence[Array], size: int = 128) -> Array:
    """(H, W, 3) uint8: frames of one size side by side, 4 px apart on white.

    Each is shrunk by averaging to about `size` pixels high, never enlarged.
    """
    factor = max(1, frames[0].shape[0] // size)
    height, width = (side // factor for side in frames[0].shape[:2])
    small = [
        f[: height * factor, : width * factor].reshape(height, factor, width, factor, 3).mean((1, 3)).astype(np.uint8)
        for f in frames
    ]
    gap = np.full((height, 4, 3), 255, np.uint8)
    parts = [part for image in small for part in (image, gap)]
    return np.concatenate(parts[:-1], axis=1)
