"""The diagnosis of a running episode: which causes of failure show, and at which step.

Before anything moves: wording, start state, and per camera a moved view, other colours, other grain. After twelve steps:
whether the robot does what it is told. While something is held: whether it slips, or the fingers open by themselves.
Of what one camera shows only one cause is named: a moved view explains the rest; else what is furthest beyond its limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from failsight.causes.familiar import (
    COLOURS,
    GRAIN,
    MOVED,
    OPENED,
    SHAKING,
    SLIP,
    START,
    WORDING,
    Familiar,
)
from failsight.causes.grip import Grip
from failsight.causes.motion import TICKS
from failsight.causes.wordings import plain
from failsight.core.lens import PREFIX
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import Array, Observation


class Finding(NamedTuple):
    """A cause and how far beyond its limit it is; a wording has no measure and counts as 1."""

    cause: str
    beyond: float


def picture_scores(familiar: Familiar, pictures: Mapping[str, Array]) -> Iterator[tuple[str, float]]:
    """Cause and number for first pictures (H, W, 3), by camera."""
    for view in familiar.views:
        if (picture := pictures.get(view.camera)) is not None:
            distance = view.distance(picture)
            yield f"{MOVED} {view.camera}", distance.moved
            yield f"{COLOURS} {view.camera}", distance.colours
            yield f"{GRAIN} {view.camera}", distance.grain


class Diagnosis:
    """Follows one episode, step by step; names every cause once."""

    def __init__(self, familiar: Familiar, actions: ActionSpec, observations: ObservationSpec) -> None:
        self._familiar = familiar
        self._grip = Grip(actions, observations) if Grip.suits(actions, observations) else None
        self._known = {plain(wording.text) for wording in familiar.wordings}
        self.reset()

    def reset(self) -> None:
        """A new episode."""
        self._states: list[Array] = []
        self._commands: list[Array] = []
        self.found: set[str] = set()
        """Causes named so far."""
        self.highest: dict[str, float] = {}
        """Cause -> the largest number so far."""
        if self._grip is not None:
            self._grip.reset()

    def begin(self, instruction: str, observation: Observation, state: Array) -> list[Finding]:
        """What shows before anything moves: `state` is (S,)."""
        self._states = [state]
        findings = []
        if self._familiar.fixed and plain(instruction) not in self._known:
            findings.append(Finding(WORDING, 1.0))
        if self._familiar.start is not None:
            findings += self._beyond({START: self._familiar.start.distance(state)})
        pictures = {k.removeprefix(PREFIX): v for k, v in observation.items() if k.startswith(PREFIX)}
        findings += _one_per_camera(self._beyond(dict(picture_scores(self._familiar, pictures))))
        self.found |= {finding.cause for finding in findings}
        return findings

    def follow(self, state: Array, command: Array) -> list[Finding]:
        """What shows once `command` (A,), which was sent at the step before, led to `state` (S,)."""
        new = self._beyond({**self._shaking(state, command), **self._holding(state, command)})
        new = [finding for finding in new if finding.cause not in self.found]
        if self._grip is not None and any(finding.cause in (SLIP, OPENED) for finding in new):
            self._grip.let_go()
        self.found |= {finding.cause for finding in new}
        return new

    def _shaking(self, state: Array, command: Array) -> dict[str, float]:
        if self._familiar.response is None or not self._states or len(self._commands) >= TICKS:
            return {}
        self._states.append(state)
        self._commands.append(command)
        if len(self._commands) < TICKS:
            return {}
        return {
            SHAKING: float(
                np.median(self._familiar.response.surprise(np.stack(self._states), np.stack(self._commands)))
            )
        }

    def _holding(self, state: Array, command: Array) -> dict[str, float]:
        if self._grip is None:
            return {}
        inwards, outwards = self._grip.feel(state, command)
        return {SLIP: inwards, OPENED: outwards}

    def _beyond(self, scores: Mapping[str, float]) -> list[Finding]:
        for cause, score in scores.items():
            self.highest[cause] = max(score, self.highest.get(cause, 0.0))
        limits = self._familiar.limits
        over = ((cause, score / max(limits[cause], 1e-12)) for cause, score in scores.items() if cause in limits)
        return [Finding(cause, share) for cause, share in over if share > 1]


def _one_per_camera(findings: list[Finding]) -> list[Finding]:
    chosen: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda f: (f.cause.startswith(MOVED), f.beyond), reverse=True):
        chosen.setdefault(finding.cause.partition(" ")[2], finding)
    return list(chosen.values())
