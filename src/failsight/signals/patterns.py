"""Weak failure patterns: what a robot in trouble does, all causal.

| name | meaning | unit |
|---|---|---|
| reversals_x, _y, _z | share of the last second in which the action along that axis changed its sign | 1 |
| progress | net over gross displacement of the tool over the last second; 1 straight, 0 back where it was | 1 |
| gripper_toggles | open/close changes of the command within the last two seconds | count |
| command_residual | norm of commanded minus observed motion over the last quarter of a second | m |
| grip_gap | opening of a gripper that is told to close: near 0 empty, wider when something is inside | 1 |
| slip | fall of that opening since the last step while closing (an object leaving the fingers) | 1 |
| overlap | squared difference of this chunk and the last one over the steps both cover (0 before the second) | action^2 |
| gripper_split | share of samples that disagree with the chunk about opening or closing next | 1 |
| low | height of the tool above the table | m |

Sources: direction reversals arXiv 2605.28726; chunk overlap Agia et al. 2024 (STAC, arXiv 2410.04640) and ActProbe
(arXiv 2606.08508).
"""

from __future__ import annotations

import numpy as np

from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.timing import steps_in
from failsight.core.types import Array, Step
from failsight.signals.window import Window

_SPAN_S, _TOGGLE_S, _RESIDUAL_S, _AHEAD_S = 1.0, 2.0, 0.25, 0.25


class PatternSignals:
    """Streaming implementation for Cartesian delta actions with one gripper."""

    names = (
        *(f"reversals_{axis}" for axis in "xyz"),
        *("progress", "gripper_toggles", "command_residual", "grip_gap", "slip", "overlap"),
        *("gripper_split", "low"),
    )
    units = ("1", "1", "1", "1", "count", "m", "1", "1", "action^2", "1", "m")

    def __init__(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        missing = {"dx", "dy", "dz", "gripper"} - set(actions.names)
        if missing:
            raise SpecMismatchError(
                f"Pattern signals need the action dimensions dx, dy, dz, gripper; missing: {sorted(missing)}. "
                f"This policy has: {', '.join(actions.names)}."
            )
        self._axes = np.array([actions.names.index(f"d{a}") for a in "xyz"])
        self._scale = np.array([actions.dimensions[i].scale for i in self._axes])
        self._gripper, self._closed = actions.names.index("gripper"), actions.gripper_closed_sign
        self._moving = np.flatnonzero(actions.scalable)
        self._xyz = np.array([observations.index(f"{a}_m") for a in "xyz"])
        self._open = observations.index("gripper_open01")
        span, rate_hz = steps_in(_SPAN_S, actions.rate_hz, 2), actions.rate_hz
        self._residual_span, self._ahead = steps_in(_RESIDUAL_S, rate_hz), steps_in(_AHEAD_S, rate_hz)
        self._signs = Window(span, 3)
        self._path = Window(max(span, self._residual_span) + 1, 3)
        self._grip = Window(steps_in(_TOGGLE_S, rate_hz, 2), 1)
        self._sent = Window(self._residual_span, 3)
        self._overlap, self._split = 0.0, 0.0
        self._last_chunk: Array | None = None
        self._since_replan, self._last_gap = 0, np.nan

    def reset(self) -> None:
        """Forget the episode."""
        for window in (self._signs, self._path, self._grip, self._sent):
            window.clear()
        self._overlap, self._split, self._last_chunk = 0.0, 0.0, None
        self._since_replan, self._last_gap = 0, np.nan

    def update(self, step: Step, out: Array) -> None:
        """Write the eleven values into `out`."""
        position = step.state[self._xyz].astype(np.float64)
        action = step.action[self._axes].astype(np.float64)
        self._path.push(position)
        out[5] = self._residual(position)
        self._sent.push(action * self._scale)
        self._signs.push(np.sign(action) * (np.abs(action) > 0.05))
        closing = step.action[self._gripper] * self._closed > 0
        self._grip.push(np.array([1.0 if closing else 0.0]))
        if step.replan:
            self._compare_chunks(step)
        self._since_replan += 1
        signs = self._signs.view()
        out[0:3] = (signs[1:] * signs[:-1] < 0).mean(0) if len(signs) > 1 else 0.0
        out[3] = self._progress()
        grip = self._grip.view()[:, 0]
        out[4] = np.abs(np.diff(grip)).sum()
        gap = float(step.state[self._open]) if closing else np.nan
        out[6] = gap if closing else 1.0
        out[7] = max(0.0, self._last_gap - gap) if np.isfinite(gap - self._last_gap) else 0.0
        self._last_gap = gap
        out[8], out[9], out[10] = self._overlap, self._split, position[2]

    def _residual(self, position: Array) -> float:
        if self._sent.count < self._residual_span:
            return 0.0
        moved = position - self._path.view()[-self._residual_span - 1]
        gap = self._sent.view().sum(0) - moved
        return float(np.sqrt(gap @ gap))

    def _progress(self) -> float:
        path = self._path.view()
        if len(path) < 3:
            return 1.0
        steps = np.diff(path, axis=0)
        gross = np.sqrt((steps * steps).sum(1)).sum()
        net = path[-1] - path[0]
        return float(np.sqrt(net @ net) / max(gross, 1e-3))

    def _compare_chunks(self, step: Step) -> None:
        chunk = step.output.chunk[:, self._moving].astype(np.float64)
        if self._last_chunk is not None:
            old = self._last_chunk[self._since_replan :]
            shared = min(len(old), len(chunk))
            if shared:
                difference = old[:shared] - chunk[:shared]
                self._overlap = float((difference * difference).mean())
        self._last_chunk, self._since_replan = chunk, 0
        if step.output.samples is not None:
            will_close = step.output.samples[:, : self._ahead, self._gripper] * self._closed > 0
            planned = step.output.chunk[: self._ahead, self._gripper] * self._closed > 0
            self._split = float((will_close != planned).mean())

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode."""
        chunk = np.zeros((0, len(self._moving))) if self._last_chunk is None else self._last_chunk
        return {
            "signs": self._signs.save(),
            "path": self._path.save(),
            "grip": self._grip.save(),
            "sent": self._sent.save(),
            "chunk": chunk.copy(),
            "scalars": np.array([self._overlap, self._split, self._since_replan, self._last_gap]),
        }

    def load_state(self, state: dict[str, Array]) -> None:
        """Restore it."""
        self._signs.load(state["signs"])
        self._path.load(state["path"])
        self._grip.load(state["grip"])
        self._sent.load(state["sent"])
        self._last_chunk = state["chunk"].copy() if len(state["chunk"]) else None
        self._overlap, self._split = float(state["scalars"][0]), float(state["scalars"][1])
        self._since_replan, self._last_gap = int(state["scalars"][2]), float(state["scalars"][3])
