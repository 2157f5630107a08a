"""Caps on how fast and how suddenly a robot may move."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from failsight.core.contracts import Context
from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import CONTINUE, Array, Decision, DecisionKind, Limits, Verdict
from failsight.interventions.motion import Motion, require_motion
from failsight.interventions.rungs.dwell import Dwell


def limits_of(actions: Iterable[Array], spec: ActionSpec, quantile: float = 0.95) -> Limits:
    """Caps at a quantile of the velocities and accelerations commanded in episodes of actions (T, A).

    A dimension that moves so rarely that the quantile is 0 is capped at the most it did; one that never moved is not.
    Raises SpecMismatchError when no episode is three steps long: there is no acceleration to take it from.
    """
    motion = Motion(spec)
    speeds = [motion.speeds(episode) for episode in actions if len(episode) > 2]
    if not speeds:
        raise SpecMismatchError("Caps are taken from episodes of three steps and more; there is none.")
    changes = [np.diff(episode, axis=0) for episode in speeds]
    return Limits(velocity=_cap(speeds, quantile), acceleration=_cap(changes, quantile))


def _cap(values: list[Array], quantile: float) -> Array:
    size = np.abs(np.concatenate(values))
    cap, most = np.quantile(size, quantile, axis=0), size.max(0)
    return np.where(cap > 0, cap, np.where(most > 0, most, np.inf))


class Limit:
    """Caps on velocity and acceleration while the trigger is on and for `dwell_s` seconds after it; with `execute`, that
    many actions of a chunk are executed meanwhile.
    """

    def __init__(
        self, limits: Limits | None = None, share: float = 0.5, execute: int = 0, dwell_s: float = 1.0
    ) -> None:
        """Args: limits: as given, or from data (`limits_of`); None: `share` of the largest command, reached in two steps."""
        self._limits, self._share, self._execute, self._dwell = limits, share, execute, Dwell(dwell_s)
        self.reset()

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """It caps motions; without given caps a range must say what the largest is. Raises SpecMismatchError."""
        motion = require_motion("A limit", actions)
        if self._limits is None and motion.targets.any():
            names = [name for name, target in zip(actions.names, motion.targets, strict=True) if target]
            raise SpecMismatchError(
                f"The range of {', '.join(names)} says where to be and not how fast to go; give the limit its caps: "
                "Limit(limits_of(actions, spec)) takes them from episodes."
            )
        if self._limits is not None:
            motion.require_size(self._limits)

    def reset(self) -> None:
        """No caps."""
        self._dwell.reset()
        self._lasts = False

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Cap while triggered; the policy's own horizon again when it is over."""
        lasted, self._lasts = self._lasts, self._dwell.goes_on(verdict, context)
        if self._lasts:
            return Decision(
                kind=DecisionKind.LIMIT,
                reason=f"limited: {verdict.why}",
                limits=self._limits or _share_of(context.action_spec, self._share),
                execute=self._execute or None,
            )
        over = lasted and self._execute
        return Decision(kind=DecisionKind.CONTINUE, reason="own horizon again", execute=0) if over else CONTINUE


def conservative() -> Limit:
    """Half of the largest command, and two actions of a chunk before the policy looks again."""
    return Limit(execute=2)


def _share_of(spec: ActionSpec, share: float) -> Limits:
    largest = share * np.maximum(np.abs(spec.low), np.abs(spec.high))
    largest = np.where(largest > 0, largest, np.inf)
    return Limits(velocity=largest, acceleration=largest / 2)
