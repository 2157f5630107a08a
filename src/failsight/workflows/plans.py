"""Which episodes, under which perturbations: keyed plans for every simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from failsight.core.errors import FailsightError, UnknownNameError
from failsight.core.mixes import spread
from failsight.core.types import EpisodeKey, Perturbation
from failsight.sims.navigation import scenarios
from failsight.sims.tabletop import plan as tabletop
from failsight.workflows.wiring import make_sim

NAVIGATION = ("navigation", "navigation-2d")
NAVIGATION_MIXES: dict[str, Mapping[str, float]] = {
    "clean": {"none": 1.0},
    "default": {
        "none": 2.0,
        "start_pose:4": 1.0,
        "wheel_slip:4": 1.0,
        "bottle_pose:4": 1.0,
        "light:4": 0.5,
        "push:4": 1.0,
    },
    "all": {f"{kind}:{level}": 1.0 for kind in scenarios.KINDS for level in range(1, 6)},
}


def make_plan(sim: str, tasks: Sequence[str], seeds: Sequence[int], trials: int, mix: str) -> tuple[EpisodeKey, ...]:
    """Episodes of a simulator; no tasks means all of them. Raises UnknownNameError for anything it does not know."""
    if sim == "tabletop":
        return tabletop.plan(list(tasks) or tabletop.all_tasks(), seeds, trials, mix)
    if sim in NAVIGATION:
        names = [scenarios.find_scenario(name).id for name in tasks] or list(scenarios.SCENARIOS)
        return spread(names, seeds, trials, _navigation_mix(mix))
    return spread(_own_tasks(sim, tasks), seeds, trials, _clean(sim, mix))


def _own_tasks(sim: str, names: Sequence[str]) -> list[str]:
    """What the simulator itself says it can set; nothing is assumed of one that is new here."""
    env = make_sim(sim)
    known = [task.id for task in env.tasks()]
    env.close()
    for name in names:
        if name not in known:
            raise UnknownNameError(f"{sim} task", name, known)
    return list(names) or known


def _clean(sim: str, mix: str) -> Mapping[str, float]:
    if mix not in ("clean", "default"):
        raise FailsightError(f"{sim} has no perturbations; use --mix clean, not {mix!r}.")
    return {"none": 1.0}


def _navigation_mix(text: str) -> Mapping[str, float]:
    if text in NAVIGATION_MIXES:
        return NAVIGATION_MIXES[text]
    if ":" not in text:
        raise FailsightError(
            f"Unknown mix {text!r}. Mixes: {', '.join(NAVIGATION_MIXES)}; or conditions such as none,push:3."
        )
    mix = dict.fromkeys(text.split(","), 1.0)
    for condition in mix:
        scenarios.require_levels(Perturbation.parse(condition))
    return mix
