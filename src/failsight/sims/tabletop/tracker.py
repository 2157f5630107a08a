"""From contacts and poses to events: grasp, release, missed closing, displacement, topple, fall."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from failsight.core.types import Event
from failsight.sims.tabletop.contacts import Peak

_CONFIRM_STEPS = 2
_MISSED_STEPS = 4
_TILTS = (5.0, 10.0, 15.0, 25.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What the tracker needs to know about one control step."""

    step: int
    gripped: str | None
    """Object both fingers touch."""
    commanded_closed: bool
    opening01: float
    heights_m: Mapping[str, float]
    """Height of every object's underside above the table."""
    moved_m: Mapping[str, float]
    """Horizontal distance of every object on the table from where it started."""
    post_tilt_deg: float
    over_goal: bool
    """Whether the target is above its goal."""


@dataclass(slots=True)
class Tracker:
    """Streaming event detection; its fields are the whole memory and are saved with the simulator."""

    target: str
    held: str | None = None
    candidate: str | None = None
    candidate_steps: int = 0
    loose_steps: int = 0
    closed_empty_steps: int = 0
    displaced_cm: dict[str, int] = field(default_factory=dict)
    tilt_level: int = 0
    handled: list[str] = field(default_factory=list)
    fallen: list[str] = field(default_factory=list)

    def update(self, scene: Scene, peaks: Mapping[tuple[str, str], Peak]) -> list[Event]:
        """Events of this control step."""
        events = self._grasp_and_release(scene)
        events += self._missed(scene)
        events += self._displaced(scene)
        events += self._toppled(scene)
        events += self._fallen(scene)
        for (subject, other), peak in sorted(peaks.items()):
            if subject in ("gripper", self.held):
                events.append(
                    Event(
                        step=scene.step,
                        kind="contact",
                        subject=subject,
                        other=other,
                        value=peak.force_n,
                        position=peak.position,
                        normal=peak.normal,
                    )
                )
        return events

    def _grasp_and_release(self, scene: Scene) -> list[Event]:
        events = []
        if scene.gripped is not None and scene.gripped == self.candidate:
            self.candidate_steps += 1
        else:
            self.candidate, self.candidate_steps = scene.gripped, 1
        if self.held is not None:
            self.loose_steps = 0 if scene.gripped == self.held else self.loose_steps + 1
            if self.loose_steps >= _CONFIRM_STEPS:
                where = "goal" if scene.over_goal and self.held == self.target else ""
                height = scene.heights_m[self.held]
                events.append(Event(step=scene.step, kind="release", subject=self.held, other=where, value=height))
                self.held = None
        if self.held is None and self.candidate is not None and self.candidate_steps >= _CONFIRM_STEPS:
            self.held, self.loose_steps = self.candidate, 0
            if self.held not in self.handled:
                self.handled.append(self.held)
            which = "" if self.held == self.target else "wrong object"
            height = scene.heights_m[self.held]
            events.append(Event(step=scene.step, kind="grasp", subject=self.held, other=which, value=height))
        return events

    def _missed(self, scene: Scene) -> list[Event]:
        empty = scene.commanded_closed and scene.gripped is None and scene.opening01 < 0.08
        self.closed_empty_steps = self.closed_empty_steps + 1 if empty else 0
        if self.closed_empty_steps == _MISSED_STEPS:
            return [Event(step=scene.step, kind="missed_close", subject="gripper")]
        return []

    def _displaced(self, scene: Scene) -> list[Event]:
        events = []
        for name, moved in scene.moved_m.items():
            whole_cm = int(moved * 100)
            if name not in self.handled and name != self.target and whole_cm > self.displaced_cm.get(name, 0):
                self.displaced_cm[name] = whole_cm
                events.append(Event(step=scene.step, kind="displaced", subject=name, value=moved))
        return events

    def _toppled(self, scene: Scene) -> list[Event]:
        events = []
        while self.tilt_level < len(_TILTS) and scene.post_tilt_deg > _TILTS[self.tilt_level]:
            events.append(Event(step=scene.step, kind="toppled", subject="post", value=_TILTS[self.tilt_level]))
            self.tilt_level += 1
        return events

    def _fallen(self, scene: Scene) -> list[Event]:
        new = [name for name, height in scene.heights_m.items() if height < -0.1 and name not in self.fallen]
        self.fallen += new
        return [Event(step=scene.step, kind="fell", subject=name) for name in new]

    def as_dict(self) -> dict[str, Any]:
        """JSON form of the memory."""
        return asdict(self)
