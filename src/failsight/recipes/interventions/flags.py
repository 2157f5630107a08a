"""Flags of an experiment on interventions; light, so that the command line starts fast."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from failsight.core.ranges import Alpha, Names, Reference, Seed, Trials


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentChoice:
    """Flags that change an experiment; one that is not given leaves it as it is."""

    sim: str = ""
    """The simulator in which interventions are tried."""
    policy: Reference = ""
    """A policy by name, a checkpoint folder, or the address of a server."""
    bundle: Path | None = None
    """The monitor that judges, fitted on this policy before (default: fit one)."""
    mix: str = ""
    """Perturbation mix, or conditions such as none,push:3."""
    tasks: Names = ()
    """Task ids (default: all)."""
    arms: Names = ()
    """Arms by name, or package.module:Attribute (default: all that work here)."""
    fallback: Reference = ""
    """The policy that the arm fallback hands over to."""
    alpha: Alpha | None = None
    """Share of successful episodes that may raise an alarm."""
    fit_trials: Trials | None = None
    """Episodes per task to fit and calibrate on."""
    gate_trials: Trials | None = None
    """Episodes per task whose forks open the rungs."""
    test_trials: Trials | None = None
    """Episodes per task for the figures."""
    seed: Seed | None = None
    """Run seed; the gate takes the next one, the test the one after."""

    def given(self) -> dict[str, Any]:
        """What was given."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value not in ("", (), None)}

    def as_arguments(self) -> str:
        """As typed on the command line."""
        return "".join(f" --{name.replace('_', '-')} {_typed(value)}" for name, value in self.given().items())


def _typed(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)
