"""Twelve tasks in three families, their goals and their instructions with paraphrases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from failsight.core.errors import UnknownNameError
from failsight.core.types import Task

HORIZON = 160
"""Control steps (8 s): about 2.5 times the expert's median, the least that leaves room for a recovery."""

Family = Literal["pick", "obstacle", "stack"]

_NOUN = {
    "red_cube": ("red cube", "red block", "crimson box", "scarlet thing"),
    "green_cube": ("green cube", "green block", "emerald box", "lime thing"),
    "blue_cube": ("blue cube", "blue block", "navy box", "azure thing"),
    "yellow_cylinder": ("yellow cylinder", "yellow can", "golden tube", "amber thing"),
}
_TEMPLATES: dict[Family, tuple[str, ...]] = {
    "pick": (
        "put the {object} in the {goal} bin",
        "place the {object} into the {goal} bin",
        "move the {object} to the {goal} box",
        "could you drop the {object} in the {goal} bin please",
        "the {goal} container is where the {object} belongs",
        "tidy up by transferring the {object} over to the {goal} hand side",
    ),
    "obstacle": (
        "lift the {object} over the wall into the {goal} bin",
        "carry the {object} over the wall to the {goal} bin",
        "move the {object} past the wall to the {goal} box",
        "could you bring the {object} over the barrier into the {goal} bin please",
        "beyond the fence in the {goal} container is where the {object} belongs",
        "avoid the divider while transferring the {object} over to the {goal} hand side",
    ),
    "stack": (
        "stack the {object} on the {goal}",
        "put the {object} on top of the {goal}",
        "place the {object} on the {goal}",
        "could you set the {object} on the {goal} please",
        "on the {goal} is where the {object} belongs",
        "build a tower with the {object} above the {goal}",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TabletopTask:
    """Which object goes where."""

    id: str
    family: Family
    target: str
    goal: str
    """`left` or `right` (a bin), or the object to stack on."""

    def instruction(self, level: int = 0) -> str:
        """The instruction, reworded more and more from level 1 (a synonym) to level 5."""
        noun = min(3, level // 2) if level else 0
        goal = _NOUN[self.goal][noun] if self.goal in _NOUN else self.goal
        return _TEMPLATES[self.family][level].format(object=_NOUN[self.target][noun], goal=goal)

    def as_task(self, level: int = 0) -> Task:
        """The task as the rest of failsight sees it."""
        return Task(id=self.id, suite="tabletop", instruction=self.instruction(level), horizon=HORIZON)


def _make(family: Family, target: str, goal: str) -> TabletopTask:
    return TabletopTask(id=f"{family}-{target}-{goal}".replace("_", "-"), family=family, target=target, goal=goal)


TASKS: dict[str, TabletopTask] = {
    task.id: task
    for task in (
        *(_make("pick", o, side) for o in ("red_cube", "green_cube", "blue_cube") for side in ("left", "right")),
        _make("obstacle", "yellow_cylinder", "left"),
        _make("obstacle", "yellow_cylinder", "right"),
        _make("obstacle", "red_cube", "left"),
        _make("stack", "red_cube", "blue_cube"),
        _make("stack", "green_cube", "red_cube"),
        _make("stack", "blue_cube", "green_cube"),
    )
}


def find_task(name: str) -> TabletopTask:
    """The task of that id. Raises UnknownNameError with the nearest ids."""
    if name not in TASKS:
        raise UnknownNameError("tabletop task", name, TASKS)
    return TASKS[name]
