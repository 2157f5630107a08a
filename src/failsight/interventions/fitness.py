"""Whether an intervention can work on a robot at all, asked before the first step."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec, ObservationSpec


@runtime_checkable
class NeedsRobot(Protocol):
    """An intervention that moves by itself, and so cannot work on every robot."""

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """Raises SpecMismatchError naming what this robot lacks."""


def require_robot(intervention: object, actions: ActionSpec, observations: ObservationSpec) -> None:
    """Refuse an intervention that cannot work on a robot. Raises SpecMismatchError."""
    if isinstance(intervention, NeedsRobot):
        intervention.require_robot(actions, observations)


def misfit(intervention: object, actions: ActionSpec, observations: ObservationSpec) -> SpecMismatchError | None:
    """Why an intervention cannot work on a robot; None when it can."""
    try:
        require_robot(intervention, actions, observations)
    except SpecMismatchError as error:
        return error
    return None
