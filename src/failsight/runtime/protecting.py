"""What may be said to whoever protects, and the guard that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

from failsight.core.contracts import Policy
from failsight.core.errors import FailsightError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.interventions.guard import Guard, Onlooker
from failsight.interventions.limits import GuardLimits
from failsight.runtime.command import Command
from failsight.runtime.pushed import Person


class Protecting(TypedDict, total=False):
    """What may be said to whoever protects, besides bundle, rungs and specs."""

    person: Person | None
    """Who takes over when a rung calls a person; None: such a rung holds, and says so."""
    fallback: Policy | None
    """Who acts where a rung hands over to another policy, asked with the observation as it was brought."""
    stop: Callable[[str], None] | None
    """Hears the reason of every stop request, at once."""
    on_alarm: Callable[[Command], None] | None
    """Told once when the trigger goes on; one that raises is a hold, a stop and a latch."""
    log: str | Path | None
    """File that gets a JSON line for every change (alarm, blindness, decision, guard, latch, end)."""
    guard: Guard | None
    """That of the robot, where others drive it too, with its own limits and token; None: a new one."""
    cameras: Sequence[str]
    """Keys of pictures (arrays) in the observation that must change while the robot moves (default: none)."""
    limits: str | Path | GuardLimits | None
    """What no command may exceed (`failsight limits RUN --out FILE`), or its file; None: the spec's range alone."""
    token: str
    """What `release` must be told besides a name, where commands come over a network; empty: nothing."""
    deadline_s: float | None
    """Longest wait for monitor, rung or person; None: as long as they take."""
    clock: Callable[[], float] | None
    """Seconds, to say when a state was measured where the caller does not (default: time.monotonic); None: ticks are
    taken to be on time, which is right in a simulator alone."""


def guard_of(spec: ActionSpec, seen: ObservationSpec, shadow: bool, protecting: Protecting) -> Guard:
    """The guard of a robot. Raises FailsightError for what contradicts itself or cannot be called, EpisodeDataError for a
    file that holds no limits, SpecMismatchError for limits of another robot.
    """
    _require_callable(protecting)
    limits = protecting.get("limits")
    if (given := protecting.get("guard")) is not None:
        if shadow or limits is not None or protecting.get("token"):
            raise FailsightError("The guard of the robot has its own limits and token, and acts; give it to them.")
        return given
    known = GuardLimits.read(Path(limits)) if isinstance(limits, str | Path) else limits
    return (Onlooker if shadow else Guard)(spec, known, seen, protecting.get("token", ""))


def _require_callable(protecting: Protecting) -> None:
    for name in ("person", "stop", "on_alarm", "clock"):
        found = protecting.get(name)
        if found is not None and not callable(found):
            raise FailsightError(f"{name} is called, and a {type(found).__name__} cannot be.")
