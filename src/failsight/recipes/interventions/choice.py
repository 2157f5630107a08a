"""Which arms can be tried on a robot, and why the others cannot."""

from __future__ import annotations

from dataclasses import dataclass

from failsight.core.contracts import Sim
from failsight.core.errors import FailsightError
from failsight.interventions.arms import ARMS, DEFAULT_ARMS, NONE, Arm, find_arms
from failsight.interventions.fitness import Diagnoses, misfit, needs_fallback
from failsight.monitor.bundle import FAMILIAR
from failsight.recipes.interventions.options import ExperimentConfig
from failsight.runtime.loop import Loop
from failsight.workflows.wiring import find_operator, make_policy, make_sim


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmChoice:
    """What is run."""

    arms: tuple[str, ...]
    """In the order of the table, without doing nothing, which always runs."""
    rungs: tuple[str, ...]
    """What the gate judges and ladders climb: the rungs among the arms; without one, all that work here."""
    left_out: dict[str, str]
    """Arm -> why it cannot be tried here."""


def choose_arms(config: ExperimentConfig) -> ArmChoice:
    """From what simulator and robot allow.

    Raises UnknownNameError for an arm nobody has heard of, FailsightError for one that was asked for and cannot be
    tried here, SpecMismatchError when the policy is not for this simulator.
    """
    wanted = [arm for arm in find_arms(config.arms or DEFAULT_ARMS) if arm.key != NONE]
    sim = make_sim(config.sim)
    try:
        Loop(sim, make_policy(config.policy), fallback=make_policy(config.fallback) if config.fallback else None)
        person = find_operator(config.sim) is not None
        reasons = {arm.key: _obstacle(arm, sim, config, person) for arm in (*wanted, *ARMS.values())}
    finally:
        sim.close()
    if config.arms:
        for arm in wanted:
            if reasons[arm.key]:
                raise FailsightError(f"--arms {arm.key} cannot be tried here: {reasons[arm.key]}")
    arms = tuple(arm for arm in wanted if not reasons[arm.key])
    able = tuple(arm.key for arm in find_arms(DEFAULT_ARMS) if arm.rung and not reasons[arm.key])
    return ArmChoice(
        arms=tuple(arm.key for arm in arms),
        rungs=tuple(arm.key for arm in arms if arm.rung) or able,
        left_out={arm.key: reasons[arm.key] for arm in wanted if reasons[arm.key]},
    )


def _obstacle(arm: Arm, sim: Sim, config: ExperimentConfig, person: bool) -> str:
    """Why an arm cannot be tried; empty when it can."""
    if not arm.autonomous and not person:
        return f"it calls a person, and {config.sim} has no operator who could come."
    if needs_fallback(arm.make(())) and not config.fallback:
        return "it hands over to another policy; name one with --fallback POLICY."
    knows = config.bundle is not None and (config.bundle / FAMILIAR).is_file()
    if isinstance(arm.make(()), Diagnoses) and not knows:
        return "it diagnoses causes; give a bundle that was fitted with --ordinary RUN."
    problem = misfit(arm.make(()), sim.action_spec, sim.observation_spec)
    return "" if problem is None else str(problem)
