"""Plans on the tabletop: which episodes, under which perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from failsight.core.errors import FailsightError
from failsight.core.mixes import spread
from failsight.core.types import EpisodeKey, Perturbation
from failsight.sims.tabletop.perturbations import KINDS, levels
from failsight.sims.tabletop.tasks import TASKS, find_task

MIXES: dict[str, Mapping[str, float]] = {
    "clean": {"none": 1.0},
    "default": {
        "none": 2.0,
        "object_pose:5": 2.5,
        "camera_pose:5": 1.0,
        "light:5": 0.75,
        "background:5": 0.75,
        "sensor_noise:5": 0.5,
        "robot_start:5": 0.5,
        "action_noise:4": 1.25,
        "push:5": 0.75,
        "slippery:5": 1.0,
        "paraphrase:4": 0.75,
        "gripper_fault:5": 2.0,
    },
}
"""Named mixes: condition -> weight. `all` is every kind at levels 1 to 5 in equal parts."""
MIXES["all"] = {f"{kind}:{level}": 1.0 for kind in KINDS for level in range(1, 6)}


def find_mix(text: str) -> Mapping[str, float]:
    """A named mix, or conditions separated by commas (`none,push:3,light:2+slippery:4`)."""
    if text in MIXES:
        return MIXES[text]
    if text and not text.replace("_", "").isalpha():
        mix = dict.fromkeys(text.split(","), 1.0)
        for condition in mix:
            levels(Perturbation.parse(condition))
        return mix
    if text in KINDS:
        raise FailsightError(f"Say how strong: {text}:1 to {text}:5.")
    raise FailsightError(f"Unknown mix {text!r}. Mixes: {', '.join(MIXES)}; or conditions such as none,push:3.")


def plan(tasks: Sequence[str], seeds: Sequence[int], trials: int, mix: str) -> tuple[EpisodeKey, ...]:
    """`trials` episodes of every task under every seed; conditions are drawn from the mix by key.

    Within a task and seed the conditions are a keyed shuffle of the mix in its proportions, so that a small plan
    still covers the mix.
    """
    for task in tasks:
        find_task(task)
    return spread(tasks, seeds, trials, find_mix(mix))


def all_tasks() -> list[str]:
    """Ids of all tabletop tasks."""
    return list(TASKS)


def targets() -> dict[str, str]:
    """Target object of every task, for the labeler."""
    return {task.id: task.target for task in TASKS.values()}
