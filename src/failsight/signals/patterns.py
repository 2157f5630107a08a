"""Weak failure patterns: what a robot in trouble does, all causal.

Each needs something of the robot (`needs_of`); where that is lacking, the signal is absent.

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

from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.timing import steps_in
from failsight.core.types import Array, Step
from failsight.signals.window import Window

_AXES, _TOOL, _OPENING = ("dx", "dy", "dz"), ("x_m", "y_m", "z_m"), "gripper_open01"
_SPAN_S, _TOGGLE_S, _RESIDUAL_S, _AHEAD_S = 1.0, 2.0, 0.25, 0.25


def needs_of(name: str) -> tuple[str, ...]:
    """Action dimensions and state entries without which a pattern cannot be computed; `*`: any that moves."""
    if name.startswith("reversals_"):
        return (f"d{name[-1]}",)
    tool, gripper = _TOOL, ("gripper",)
    table = {"progress": tool, "low": tool, "command_residual": (*_AXES, *tool), "overlap": ("*",)}
    return {**table, "grip_gap": (*gripper, _OPENING), "slip": (*gripper, _OPENING)}.get(name, gripper)


def _has(need: str, actions: ActionSpec, observations: ObservationSpec) -> bool:
    return bool(moving(actions).any()) if need == "*" else need in (*actions.names, *observations.state)


def moving(actions: ActionSpec) -> Array:
    """(A,) bool: dimensions that move something, which is all but those with two values (a gripper)."""
    return np.array([dimension.kind != "binary" for dimension in actions.dimensions], bool)


class PatternSignals:
    """Streaming implementation for Cartesian actions with one gripper; on another robot, those it has what is needed for.

    `names` and `units` of an instance are those of its robot.
    """

    names: tuple[str, ...] = (
        *(f"reversals_{axis}" for axis in "xyz"),
        *("progress", "gripper_toggles", "command_residual", "grip_gap", "slip", "overlap"),
        *("gripper_split", "low"),
    )
    units: tuple[str, ...] = ("1", "1", "1", "1", "count", "m", "1", "1", "action^2", "1", "m")

    def __init__(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        able = [all(_has(need, actions, observations) for need in needs_of(name)) for name in type(self).names]
        self._present = np.flatnonzero(able)
        self._whole, self._values = all(able), np.zeros(len(able))
        self.names = tuple(type(self).names[i] for i in self._present)
        self.units = tuple(type(self).units[i] for i in self._present)
        self._signed = np.array([i for i, name in enumerate(_AXES) if name in actions.names], int)
        self._axes = np.array([actions.names.index(_AXES[i]) for i in self._signed], int)
        self._scale = np.array([actions.dimensions[i].scale for i in self._axes])
        self._gripper = actions.names.index("gripper") if "gripper" in actions.names else None
        self._closed = actions.gripper_closed_sign
        self._moving = np.flatnonzero(moving(actions))
        tool = all(name in observations.state for name in _TOOL)
        self._xyz = np.array([observations.index(name) for name in _TOOL]) if tool else None
        self._commanded = len(self._axes) == len(_AXES)
        self._open = observations.state.index(_OPENING) if _OPENING in observations.state else None
        self._windows(actions.rate_hz)

    def _windows(self, rate_hz: float) -> None:
        span = steps_in(_SPAN_S, rate_hz, 2)
        self._residual_span, self._ahead = steps_in(_RESIDUAL_S, rate_hz), steps_in(_AHEAD_S, rate_hz)
        self._signs = Window(span, len(self._axes))
        self._path = Window(max(span, self._residual_span) + 1, 3)
        self._grip = Window(steps_in(_TOGGLE_S, rate_hz, 2), 1)
        self._sent = Window(self._residual_span, len(self._axes))
        self._overlap, self._split = 0.0, 0.0
        self._last_chunk: Array | None = None
        self._executed, self._last_gap = 0, np.nan

    def reset(self) -> None:
        """Forget the episode."""
        for window in (self._signs, self._path, self._grip, self._sent):
            window.clear()
        self._overlap, self._split, self._last_chunk = 0.0, 0.0, None
        self._executed, self._last_gap = 0, np.nan

    def update(self, step: Step, out: Array) -> None:
        """Write the values into `out` (len(names),)."""
        values = out if self._whole else self._values
        if self._xyz is not None:
            self._track(step.state[self._xyz].astype(np.float64), values)
        if len(self._axes):
            self._turn(step.action[self._axes].astype(np.float64), values)
        if self._gripper is not None:
            self._hold(step, self._gripper, values)
        if step.replan:
            self._compare_chunks(step)
        self._executed = step.cursor + 1
        values[8], values[9] = self._overlap, self._split
        if not self._whole:
            out[:] = values[self._present]

    def _track(self, position: Array, values: Array) -> None:
        """Where the tool is: progress, residual against what was sent before, height."""
        self._path.push(position)
        if self._commanded:
            values[5] = self._residual(position)
        values[3], values[10] = self._progress(), position[2]

    def _turn(self, action: Array, values: Array) -> None:
        """What is sent along the axes: sign changes."""
        self._sent.push(action * self._scale)
        self._signs.push(np.sign(action) * (np.abs(action) > 0.05))
        signs = self._signs.view()
        values[self._signed] = (signs[1:] * signs[:-1] < 0).mean(0) if len(signs) > 1 else 0.0

    def _hold(self, step: Step, gripper: int, values: Array) -> None:
        """What the gripper is told, and how far it is open."""
        closing = step.action[gripper] * self._closed > 0
        self._grip.push(np.array([1.0 if closing else 0.0]))
        values[4] = np.abs(np.diff(self._grip.view()[:, 0])).sum()
        if self._open is None:
            return
        gap = float(step.state[self._open]) if closing else np.nan
        values[6] = gap if closing else 1.0
        values[7] = max(0.0, self._last_gap - gap) if np.isfinite(gap - self._last_gap) else 0.0
        self._last_gap = gap

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
            old = self._last_chunk[self._executed :]
            shared = min(len(old), len(chunk))
            if shared and len(self._moving):
                difference = old[:shared] - chunk[:shared]
                self._overlap = float((difference * difference).mean())
        self._last_chunk, self._executed = chunk, 0
        if step.output.samples is not None and self._gripper is not None:
            will_close = step.output.samples[:, : self._ahead, self._gripper] * self._closed > 0
            planned = step.output.chunk[: self._ahead, self._gripper] * self._closed > 0
            self._split = float((will_close != planned).mean())

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode: windows (N, W), oldest row first, the last chunk, and `scalars` (4,)."""
        chunk = np.zeros((0, len(self._moving))) if self._last_chunk is None else self._last_chunk
        return {
            "signs": self._signs.save(),
            "path": self._path.save(),
            "grip": self._grip.save(),
            "sent": self._sent.save(),
            "chunk": chunk.copy(),
            "scalars": np.array([self._overlap, self._split, self._executed, self._last_gap]),
        }

    def load_state(self, state: dict[str, Array]) -> None:
        """Restore it."""
        self._signs.load(state["signs"])
        self._path.load(state["path"])
        self._grip.load(state["grip"])
        self._sent.load(state["sent"])
        self._last_chunk = state["chunk"].copy() if len(state["chunk"]) else None
        self._overlap, self._split = float(state["scalars"][0]), float(state["scalars"][1])
        self._executed, self._last_gap = int(state["scalars"][2]), float(state["scalars"][3])
