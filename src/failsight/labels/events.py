"""Labels from simulator events, with documented thresholds.

Types, in order of precedence:

- **collision**: a contact or a topple that `core.harm.CollisionRule` counts.
- **drop**: the object was released higher than `drop_height_m` above its support and not above its goal, and the
  episode did not recover.
- **miss**: never lifted, and the gripper closed on nothing or on a wrong object at least once.
- **timeout**: everything else that ran out of time.

Onset is the step after which the episode was lost: the collision; the last drop; the first missed or wrong closing of a
miss; and for a timeout the last step at which the tool still made progress (net over gross motion above 0.3 within a
second), at the latest one second before the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from failsight.core.contracts import Labels
from failsight.core.harm import CollisionRule
from failsight.core.specs import ActionSpec
from failsight.core.timing import steps_in
from failsight.core.types import Array, Event


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelThresholds:
    """Every number a label depends on."""

    collision: CollisionRule = field(default_factory=CollisionRule)
    drop_height_m: float = 0.015
    """Below this a release is a re-grasp on the table."""
    lift_height_m: float = 0.015
    """A grasp that rises higher counts as lifted."""
    horizon_s: float = 1.0
    """Dimension risk looks this far ahead."""
    approach: float = 0.3
    """Share of the contact normal along an action dimension from which that dimension is at risk."""
    progress: float = 0.3
    """Net over gross motion below which the tool makes no progress."""


class EventLabeler:
    """Turns events into labels."""

    name = "events"

    def __init__(
        self,
        target_of: dict[str, str],
        actions: ActionSpec,
        thresholds: LabelThresholds | None = None,
    ) -> None:
        """Args: target_of: target object of every task; actions: what the action dimensions mean."""
        self._targets, self._actions = target_of, actions
        self.thresholds = thresholds or LabelThresholds()
        self._span = steps_in(self.thresholds.horizon_s, actions.rate_hz)

    def label(self, task: str, states: Array, actions: Array, events: Sequence[Event], success: bool) -> Labels:
        """Labels of one episode; states (T, S) with x, y, z of the tool first, actions (T, A)."""
        steps = len(states)
        kind, onset = (None, None) if success else self._failure(self._targets[task], states, events)
        time = np.full(steps, np.inf)
        if onset is not None:
            time = np.maximum(onset - np.arange(steps), 0).astype(float)
        dimension = self._dimension_risk(self._targets[task], states, actions, events)
        return Labels(success=success, failure_type=kind, onset=onset, time_to_failure=time, dimension=dimension)

    def _failure(self, target: str, states: Array, events: Sequence[Event]) -> tuple[str, int]:
        hits = [e.step for e in events if self.thresholds.collision.matches(e)]
        if hits:
            return "collision", hits[0]
        drops = [e.step for e in events if self._is_drop(e, target)]
        if drops:
            return "drop", drops[-1]
        bad = [e.step for e in events if e.kind == "missed_close" or (e.kind == "grasp" and e.subject != target)]
        lifted = any(
            e.kind == "release" and e.subject == target and (e.value > self.thresholds.lift_height_m or e.other)
            for e in events
        )
        holds_at_end = _held_at_end(events, target)
        if bad and not lifted and not holds_at_end:
            return "miss", bad[0]
        return "timeout", self._stalled(states)

    def _is_drop(self, event: Event, target: str) -> bool:
        high = event.value > self.thresholds.drop_height_m
        return event.kind == "release" and event.subject == target and high and event.other != "goal"

    def _stalled(self, states: Array) -> int:
        """Last step from which the tool, over the following second, still got anywhere."""
        span = self._span
        latest = max(0, len(states) - span - 1)
        position = states[:, :3].astype(np.float64)
        for t in range(latest, 0, -1):
            window = position[t : t + span + 1]
            gross = np.linalg.norm(np.diff(window, axis=0), axis=1).sum()
            if gross > 0.02 and np.linalg.norm(window[-1] - window[0]) / gross > self.thresholds.progress:
                return t
        return 0

    def _dimension_risk(self, target: str, states: Array, actions: Array, events: Sequence[Event]) -> Array:
        """(T, A) bool: harm through each dimension within the next second.

        A unit of action along dimension d moves the contact point by J_d: the axis itself for a translation,
        axis x lever for a rotation about the tool. The share of that motion along the contact normal (into what is
        hit) is what dimension d contributes. A drop or a missed closing is the gripper's.
        """
        risk = np.zeros((len(states), len(self._actions.dimensions)), bool)
        for event in events:
            weights = self._contribution(event, states, actions, target)
            first = max(0, event.step - self._span)
            risk[first : event.step + 1] |= weights
        return risk

    def _contribution(self, event: Event, states: Array, actions: Array, target: str) -> Array:
        names = self._actions.names
        share = np.zeros(len(names), bool)
        if event.kind == "missed_close" or self._is_drop(event, target):
            share[np.array(names) == "gripper"] = True
        if event.kind != "contact" or not self.thresholds.collision.matches(event):
            return share
        at = min(event.step, len(states) - 1)
        lever = np.array(event.position) - states[at, :3]
        normal = np.array(event.normal)
        jacobian = _point_jacobian(names, lever)
        along = jacobian @ normal
        size = np.linalg.norm(jacobian, axis=1)
        pushing = np.divide(np.abs(along), size, out=np.zeros_like(along), where=size > 1e-3)
        return np.asarray(share | (pushing > self.thresholds.approach))


def _point_jacobian(names: Sequence[str], lever: Array) -> Array:
    """(A, 3): motion of the contact point, `lever` away from the tool centre, per unit of each dimension (m or m/rad)."""
    axes = {"x": np.array([1.0, 0, 0]), "y": np.array([0, 1.0, 0]), "z": np.array([0, 0, 1.0])}
    turns = {"droll": "x", "dpitch": "y", "dyaw": "z"}
    rows = np.zeros((len(names), 3))
    for i, name in enumerate(names):
        if name in ("dx", "dy", "dz"):
            rows[i] = axes[name[1]]
        elif name in turns:
            rows[i] = np.cross(axes[turns[name]], lever)
    return rows


def _held_at_end(events: Sequence[Event], target: str) -> bool:
    last = [e.kind for e in events if e.subject == target and e.kind in ("grasp", "release")]
    return bool(last) and last[-1] == "grasp"
