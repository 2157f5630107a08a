"""Whether parts fit together: asked before the first step, and of what a policy answers."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from failsight.causes.familiar import Familiar
from failsight.core.contracts import Policy, Sim
from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec, ObservationSpec, require_equal
from failsight.core.types import PolicyOutput


@runtime_checkable
class NeedsRobot(Protocol):
    """An intervention that moves by itself, and so cannot work on every robot."""

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """Raises SpecMismatchError naming what this robot lacks."""


def needs_fallback(intervention: object) -> bool:
    """Whether an intervention hands over to another policy."""
    return bool(getattr(intervention, "needs_fallback", False))


def require_fallback(intervention: object, fallback: object) -> None:
    """Refuse an intervention that hands over where there is nobody else. Raises SpecMismatchError."""
    if needs_fallback(intervention) and fallback is None:
        raise SpecMismatchError(
            "It hands over to another policy, and there is none: Loop(fallback=...), or --fallback POLICY."
        )


@runtime_checkable
class Diagnoses(Protocol):
    """An intervention that has to know what the policy is familiar with."""

    def learn(self, familiar: Familiar | None) -> None:
        """Raises SpecMismatchError when nothing is known."""


def equip(intervention: object, monitor: object) -> None:
    """Hand an intervention what the monitor's bundle knows of the policy. Raises SpecMismatchError when it needs it and
    there is nothing.
    """
    if isinstance(intervention, Diagnoses):
        intervention.learn(getattr(monitor, "familiar", None))


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


def require_fit(sim: Sim, policy: Policy, intervention: object) -> None:
    """Refuse parts that mean different things. Raises SpecMismatchError.

    That is: policy and simulator with other specs, an intervention that cannot work on this robot, or an action
    dimension that nothing says how to hold still.
    """
    require_equal("Action specs of policy and simulator", policy=policy.action_spec, simulator=sim.action_spec)
    require_equal(
        "Observation specs of policy and simulator", policy=policy.observation_spec, simulator=sim.observation_spec
    )
    require_robot(intervention, sim.action_spec, sim.observation_spec)
    names = sim.observation_spec.state
    sim.action_spec.first(np.zeros(len(names)), names)


def require_columns(output: PolicyOutput, spec: ActionSpec) -> None:
    """Refuse a chunk (H, C) with another number of columns than there are action dimensions. Raises SpecMismatchError."""
    columns, wanted = output.chunk.shape[1], len(spec.dimensions)
    if columns != wanted:
        raise SpecMismatchError(
            f"its chunk has {columns} columns for the {wanted} action dimensions {', '.join(spec.names)}"
        )
