"""The six uncertainty signals, all causal.

| name | meaning | unit |
|---|---|---|
| epistemic_spread | standard deviation over ensemble members (over samples when there is no ensemble) of the next actions | action |
| action_magnitude | Euclidean norm of the action's moving dimensions | action |
| action_variance | variance over the drawn samples of the next actions, mean over dimensions | action^2 |
| smoothness | norm of the change of action since the last step (0 at the first) | action |
| max_joint_variance | largest variance of any one dimension over the last half second | action^2 |
| trend | slope of the epistemic spread over the last second | action / step |

"Next actions" are the actions of the chunk from the present cursor to its end. A policy without samples or ensemble
gives NaN in the signals that need them; predictors mask NaN.
"""

from __future__ import annotations

import numpy as np

from failsight.core.timing import REFERENCE_HZ, steps_in
from failsight.core.types import Array, Step
from failsight.signals.window import Window

_RECENT_S, _TREND_S = 0.5, 1.0


class UncertaintySignals:
    """Streaming implementation; `moving` selects the dimensions that are not a gripper."""

    names = (
        "epistemic_spread",
        "action_magnitude",
        "action_variance",
        "smoothness",
        "max_joint_variance",
        "trend",
    )
    units = ("action", "action", "action^2", "action", "action^2", "action/step")

    def __init__(self, moving: Array, rate_hz: float = REFERENCE_HZ) -> None:
        self._moving = np.flatnonzero(moving)
        self._actions = Window(steps_in(_RECENT_S, rate_hz, 2), len(self._moving))
        self._spreads = Window(steps_in(_TREND_S, rate_hz, 3), 1)
        self._chunk_spread, self._chunk_variance = np.zeros(0), np.zeros(0)
        self.reset()

    def reset(self) -> None:
        """Forget the episode."""
        self._actions.clear()
        self._spreads.clear()
        self._cached: int | None = None

    def update(self, step: Step, out: Array) -> None:
        """Write the six values into `out`."""
        output = step.output
        if step.replan or self._cached != id(output):
            self._refresh(step)
        cursor = min(step.cursor, len(self._chunk_spread) - 1)
        action = step.action[self._moving].astype(np.float64)
        last = self._actions.view()[-1] if self._actions.count else action
        change = action - last
        self._actions.push(action)
        spread = float(self._chunk_spread[cursor])
        self._spreads.push(np.array([spread]))
        recent = self._actions.view()
        centred = recent - recent.mean(0)
        out[0] = spread
        out[1] = np.sqrt(action @ action)
        out[2] = self._chunk_variance[cursor]
        out[3] = np.sqrt(change @ change)
        out[4] = (centred * centred).mean(0).max()
        out[5] = _slope(self._spreads.view()[:, 0])

    def _refresh(self, step: Step) -> None:
        """Per-cursor spread and variance of a new policy output: from the cursor to the end of the chunk."""
        output = step.output
        self._cached = id(output)
        draws = output.members if output.members is not None else output.samples
        nan = np.full(len(output.chunk), np.nan)
        self._chunk_spread = nan if draws is None else _tail_mean(self._variance(draws).mean(1)) ** 0.5
        self._chunk_variance = nan if output.samples is None else _tail_mean(self._variance(output.samples).mean(1))

    def _variance(self, draws: Array) -> Array:
        """(K, H, A) -> (H, moving) variance over draws."""
        part = draws[:, :, self._moving].astype(np.float64)
        centred = part - part.mean(0)
        return np.asarray((centred * centred).mean(0))

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode: windows (N, W), oldest row first; spread and variance (H,) of the chunk."""
        return {
            "actions": self._actions.save(),
            "spreads": self._spreads.save(),
            "chunk_spread": self._chunk_spread.copy(),
            "chunk_variance": self._chunk_variance.copy(),
        }

    def load_state(self, state: dict[str, Array]) -> None:
        """Restore it; the next step re-reads the policy output it is given."""
        self._actions.load(state["actions"])
        self._spreads.load(state["spreads"])
        self._chunk_spread, self._chunk_variance = state["chunk_spread"].copy(), state["chunk_variance"].copy()
        self._cached = None


def _tail_mean(values: Array) -> Array:
    """Mean of each entry and all after it, (H,) -> (H,)."""
    counts = np.arange(len(values), 0, -1)
    return np.asarray(np.cumsum(values[::-1])[::-1] / counts)


def _slope(values: Array) -> float:
    """Least-squares slope per step; 0 for fewer than three values, NaN if any value is."""
    count = len(values)
    if count < 3:
        return 0.0
    time = np.arange(count) - (count - 1) / 2
    return float(time @ values / (time @ time))
