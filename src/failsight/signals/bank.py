"""All signal groups as one vector, in a fixed order: what predictors are fed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from failsight.core.errors import SpecMismatchError
from failsight.core.specs import Access, ActionSpec, ObservationSpec, SignalColumn
from failsight.core.types import Array, Step
from failsight.signals.patterns import PatternSignals, moving
from failsight.signals.uncertainty import UncertaintySignals

UNCERTAINTY_NAMES = UncertaintySignals.names
SIGNAL_NAMES = UncertaintySignals.names + PatternSignals.names
SIGNAL_UNITS = UncertaintySignals.units + PatternSignals.units
_BODY = ("progress", "command_residual", "grip_gap", "slip", "low")
_SAMPLED = ("epistemic_spread", "action_variance", "trend", "gripper_split")


def _access(name: str) -> Access:
    return Access.PROPRIOCEPTION if name in _BODY else Access.SAMPLES if name in _SAMPLED else Access.ACTIONS


SIGNAL_COLUMNS = tuple(
    SignalColumn(name=name, unit=unit, access=_access(name))
    for name, unit in zip(SIGNAL_NAMES, SIGNAL_UNITS, strict=True)
)


def bank_columns(actions: ActionSpec, observations: ObservationSpec) -> tuple[SignalColumn, ...]:
    """What a bank computes on this robot: `SIGNAL_COLUMNS` without those it lacks something for."""
    names = SignalBank(actions, observations).names
    return tuple(column for column in SIGNAL_COLUMNS if column.name in names)


class SignalBank:
    """The six uncertainty signals and the weak failure patterns that the robot has what is needed for, once per step."""

    def __init__(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """Raises SpecMismatchError when no action dimension moves anything."""
        if not moving(actions).any():
            raise SpecMismatchError(
                f"Signals are about motion, and none of the action dimensions ({', '.join(actions.names) or 'none'}) moves."
            )
        self._uncertainty = UncertaintySignals(moving(actions), actions.rate_hz)
        self._patterns = PatternSignals(actions, observations)
        self.names = self._uncertainty.names + self._patterns.names
        self.units = self._uncertainty.units + self._patterns.units
        self._values = np.zeros(len(self.names))
        self._split = len(self._uncertainty.names)

    def reset(self) -> None:
        """Forget the episode."""
        self._uncertainty.reset()
        self._patterns.reset()

    def update(self, step: Step) -> Array:
        """(len(names),) float64; the array is reused by the next call."""
        self._uncertainty.update(step, self._values[: self._split])
        self._patterns.update(step, self._values[self._split :])
        return self._values

    def save_state(self) -> dict[str, Array]:
        """Memory of the running episode."""
        parts = {"uncertainty": self._uncertainty.save_state(), "patterns": self._patterns.save_state()}
        return {f"{group}.{name}": array for group, part in parts.items() for name, array in part.items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it."""
        for group, signals in (("uncertainty", self._uncertainty), ("patterns", self._patterns)):
            prefix = f"{group}."
            signals.load_state({n[len(prefix) :]: a for n, a in state.items() if n.startswith(prefix)})


def replay_signals(steps: list[Step], actions: ActionSpec, observations: ObservationSpec) -> Array:
    """Signals of a recorded episode, (T, len(names)) float32, computed by the streaming code itself."""
    bank = SignalBank(actions, observations)
    bank.reset()
    rows = [bank.update(step).astype(np.float32) for step in steps]
    return np.stack(rows) if rows else np.zeros((0, len(bank.names)), np.float32)
