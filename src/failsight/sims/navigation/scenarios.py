"""Where things stand: eight scenarios named as in the Mobile-VLA recordings, drawn anew for every episode.

`2box_hori_left`: two boxes, lying across the way, to be passed on the left. `vert` boxes stand along the way. Names
follow https://github.com/minuum (Mobile-VLA data collector); the distances are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from failsight.core.errors import UnknownNameError
from failsight.core.rng import keyed_rng
from failsight.core.types import Array, EpisodeKey, Task

HORIZON = 40
"""Control steps of 0.4 s."""

SCENARIOS = tuple(
    f"{boxes}box_{lie}_{side}" for boxes in (1, 2) for lie in ("vert", "hori") for side in ("left", "right")
)

KINDS = ("start_pose", "wheel_slip", "bottle_pose", "light", "push")
"""Perturbations, levels 1 to 5."""

BOX_M: Mapping[str, tuple[float, float, float]] = {"vert": (0.20, 0.11, 0.17), "hori": (0.11, 0.20, 0.17)}
"""Half sizes of a box: along the way, across, up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One episode's layout; x forward from the start, y to the left, m and rad."""

    boxes: tuple[tuple[float, float, float], ...]
    """(x, y, yaw) of each box."""
    half: tuple[float, float, float]
    bottle: tuple[float, float]
    start: tuple[float, float, float]
    """(x, y, yaw)."""
    slip: float
    """Share of the commanded velocity that is lost, redrawn sign per step."""
    light: float
    push_at: int
    """Step of a sideways shove, -1 for none."""
    push_m: float


def instruction_of(scenario: str) -> str:
    """What the robot is told; the side is part of it, since the picture does not say which way is wanted."""
    return f"navigate around the obstacle on the {scenario.rsplit('_', 1)[1]} to the bottle"


PHRASINGS: dict[str, tuple[str, ...]] = {
    instruction_of(f"1box_vert_{side}"): (
        f"go around the box on the {side} and drive to the bottle",
        f"pass the obstacle on its {side} side and stop at the bottle",
        f"reach the bottle by going {side} of the obstacle",
    )
    for side in ("left", "right")
}
"""Other wordings of both instructions, for language augmentation."""


def tasks() -> list[Task]:
    """One task per scenario."""
    return [Task(id=s, suite="navigation", instruction=instruction_of(s), horizon=HORIZON) for s in SCENARIOS]


def find_scenario(name: str) -> Task:
    """Raises UnknownNameError with the nearest names."""
    for task in tasks():
        if task.id == name:
            return task
    raise UnknownNameError("scenario", name, SCENARIOS)


def make_scene(key: EpisodeKey) -> Scene:
    """The layout of an episode; a function of its key alone."""
    boxes, lie, side = find_scenario(key.task).id.split("_")
    rng = keyed_rng(*key.parts, "layout")
    level = _levels(key)
    sign = 1.0 if side == "left" else -1.0
    distance = rng.uniform(1.7, 2.3)
    lateral = rng.uniform(-0.25, 0.25) * (1 + 0.4 * level["bottle_pose"])
    first = (
        0.5 * distance + rng.uniform(-0.1, 0.1),
        0.4 * lateral + rng.uniform(-0.08, 0.08),
        rng.uniform(-0.15, 0.15),
    )
    stand = [first]
    if boxes == "2box":
        apart = BOX_M[lie][1] * 2 + rng.uniform(0.02, 0.06)
        stand.append((first[0] + rng.uniform(-0.05, 0.05), first[1] - sign * apart, rng.uniform(-0.15, 0.15)))
    wild = keyed_rng(*key.parts, "perturbation")
    spread = 0.06 * level["start_pose"]
    start = (
        rng.uniform(-0.05, 0.05),
        rng.uniform(-0.08, 0.08) + spread * wild.uniform(-1, 1),
        rng.uniform(-0.08, 0.08) + 1.5 * spread * wild.uniform(-1, 1),
    )
    return Scene(
        boxes=tuple(stand),
        half=BOX_M[lie],
        bottle=(float(distance), float(lateral)),
        start=start,
        slip=0.08 * level["wheel_slip"],
        light=1.0 - 0.14 * level["light"],
        push_at=int(wild.integers(4, 10)) if level["push"] else -1,
        push_m=0.05 * level["push"] * float(wild.choice([-1.0, 1.0])),
    )


def _levels(key: EpisodeKey) -> dict[str, int]:
    found = dict.fromkeys(KINDS, 0)
    for perturbation in key.perturbations:
        if perturbation.kind not in KINDS:
            raise UnknownNameError("navigation perturbation", perturbation.kind, KINDS)
        found[perturbation.kind] = perturbation.level
    return found


def box_corners(scene: Scene) -> Array:
    """(boxes * 4, 2) corners on the floor, m."""
    corners = []
    for x, y, yaw in scene.boxes:
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        signs = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
        corners += [turn @ [sx * scene.half[0], sy * scene.half[1]] + [x, y] for sx, sy in signs]
    return np.array(corners)
