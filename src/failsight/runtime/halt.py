"""What a loop does when something broke: who it was and how, a hold, a stop command."""

from __future__ import annotations

from collections.abc import Callable

from failsight.core.contracts import Robot
from failsight.core.errors import FailsightError
from failsight.core.types import Array


def told(who: str, error: BaseException) -> str:
    """Who broke and how, in one line."""
    said = " ".join(str(error).split())
    kind = "" if isinstance(error, FailsightError) and said else type(error).__name__
    return ": ".join(part for part in (who, kind, said) if part)


def halt(robot: Robot, hold: Array | None, reason: str) -> str:
    """A hold (A,) when one is known, then a stop command; each is tried whatever became of the other.

    Returns what was sent and what was not.
    """
    held = [] if hold is None else [_tried("hold", lambda: robot.send(hold))]
    return ", ".join([*held, _tried("stop", lambda: robot.stop(reason))])


def _tried(name: str, command: Callable[[], None]) -> str:
    try:
        command()
    except Exception as error:
        return f"{name} not sent ({error})"
    return f"{name} sent"
