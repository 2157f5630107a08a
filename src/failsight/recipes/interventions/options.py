"""What an intervention experiment is about: simulator, policy, who judges, how many episodes, which arms."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from failsight.recipes.interventions.flags import ExperimentChoice
from failsight.workflows.fit_ensemble import FitOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentConfig:
    """A complete experiment; every experiment on interventions is a configuration of this one."""

    name: str
    policy: str = "tabletop-strong"
    sim: str = "tabletop"
    mix: str = "default"
    tasks: tuple[str, ...] = ()
    """Empty: all of the simulator's."""
    bundle: Path | None = None
    """The monitor that judges; None: one is fitted first."""
    arms: tuple[str, ...] = ()
    """Empty: every arm that simulator and robot allow."""
    fallback: str = ""
    """The policy that another arm or rung hands over to; empty: there is none."""
    seed: int = 100
    fit_trials: int = 20
    """Episodes per task to fit and calibrate on."""
    gate_trials: int = 5
    test_trials: int = 12
    workers: int = 2
    video_share: float = 0.03
    fit: FitOptions = field(default_factory=FitOptions)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "bundle": None if self.bundle is None else str(self.bundle)}

    @property
    def decides(self) -> dict[str, Any]:
        """All that decides the outcomes of forks beside bundle and arms; records of another one are not reused."""
        data = self.as_dict()
        names = ("sim", "policy", "mix", "tasks", "seed", *(("fallback",) if self.fallback else ()))
        return {name: data[name] for name in names}


def configured(config: ExperimentConfig, choice: ExperimentChoice) -> ExperimentConfig:
    """The experiment with what was given in place of its own."""
    given = choice.given()
    alpha = given.pop("alpha", config.fit.alpha)
    if "bundle" in given:
        given["bundle"] = Path(os.path.abspath(given["bundle"]))
    return replace(config, **given, fit=replace(config.fit, alpha=alpha))
