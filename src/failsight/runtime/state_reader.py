"""Where the measured state and the instruction are in somebody else's observation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from failsight.core.specs import ObservationSpec
from failsight.runtime.policy_face import to_array
from failsight.runtime.protector import STATE

State = str | Callable[[Any], Any] | None
"""A key of the observation, a function of it, "" for one of the usual names, None for no state at all."""
INSTRUCTIONS = ("task", "prompt")
"""Under which an observation says what is to be done, in LeRobot and openpi."""
_STATES = (STATE, "observation/state", "state")


class StateReader:
    """Puts the measured state under our name."""

    def __init__(self, state: State, spec: ObservationSpec) -> None:
        self._state, self._wanted = state, bool(spec.state)

    def seen(self, observation: Any) -> Mapping[str, Any]:
        """The observation as a map, with `observation.state` (S,) where the state was found."""
        seen = observation if isinstance(observation, Mapping) else {}
        found = self._found(observation) if self._wanted else None
        if found is None:
            return seen
        measured = to_array(found)
        return {**seen, STATE: measured[0] if measured.ndim == 2 and len(measured) == 1 else measured}

    def _found(self, observation: Any) -> Any:
        if self._state is None:
            return None
        if callable(self._state):
            return self._state(observation)
        if not isinstance(observation, Mapping):
            return observation
        names = (self._state,) if self._state else _STATES
        return next((observation[name] for name in names if name in observation), None)


def said(observation: Any) -> str:
    """The instruction in an observation; empty where there is none."""
    for name in INSTRUCTIONS:
        found = observation.get(name) if isinstance(observation, Mapping) else None
        found = found[0] if isinstance(found, list) and found else found
        if isinstance(found, str) and found.strip():
            return found
    return ""
