"""Where things stand at the start of an episode."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from failsight.core.rng import keyed_rng
from failsight.core.types import EpisodeKey
from failsight.sims.tabletop.perturbations import Disturbance
from failsight.sims.tabletop.scene import OBJECTS, WALL_Y
from failsight.sims.tabletop.tasks import TabletopTask


class Layout(NamedTuple):
    """Start poses on the table, metres and radians."""

    objects: dict[str, tuple[float, float, float]]
    """x, y, yaw of every object on the table; the others are parked out of sight."""
    post: tuple[float, float] | None
    wall_side: str | None


def make_layout(task: TabletopTask, key: EpisodeKey, disturbance: Disturbance) -> Layout:
    """Random but keyed: objects at least `spacing_m` apart in a region widened by `region_m`.

    The post of the obstacle family keeps the same distance from everything else; a stray post stands close to the
    target, whatever the family.
    """
    rng = keyed_rng(*key.parts, "layout")
    present = [task.target]
    if task.goal in OBJECTS:
        present.append(task.goal)
    spare = [name for name in OBJECTS if name not in present]
    distractors = 1 if task.family != "pick" else 2
    present += [str(name) for name in rng.permutation(spare)[:distractors]]
    count = len(present) + (task.family == "obstacle")
    half = np.array([0.12, 0.09]) + disturbance.region_m * np.array([0.6, 0.4])
    points = _spread(rng, count, half, disturbance.spacing_m)
    yaws = rng.uniform(-0.4, 0.4, len(present))
    objects = {n: (float(points[i][0]), float(points[i][1]), float(yaws[i])) for i, n in enumerate(present)}
    post = (float(points[-1][0]), float(points[-1][1])) if task.family == "obstacle" else None
    if disturbance.stray_post_m:
        post = _beside(rng, points[0], points[1 : len(present)], disturbance.stray_post_m)
    return Layout(objects, post, task.goal if task.family == "obstacle" else None)


def _beside(
    rng: np.random.Generator, target: np.ndarray, others: list[np.ndarray], distance_m: float
) -> tuple[float, float]:
    """A place at least `distance_m` and at most 2.5 cm more from the target, as far from the other objects and the walls as 16 tries allow."""
    angles, distances = rng.uniform(0, 2 * np.pi, 16), rng.uniform(distance_m, distance_m + 0.025, 16)
    places = target + distances[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    room = [
        min(WALL_Y - abs(float(place[1])), *(float(np.hypot(*(place - other))) for other in others)) for place in places
    ]
    x, y = places[int(np.argmax(room))]
    return float(x), float(y)


def _spread(rng: np.random.Generator, count: int, half: np.ndarray, spacing: float) -> list[np.ndarray]:
    """`count` points at least `spacing` apart, by rejection; the spacing relaxes when a try gets stuck."""
    while True:
        points: list[np.ndarray] = []
        for _ in range(200):
            point = rng.uniform(-half, half)
            if all(np.hypot(*(point - other)) >= spacing for other in points):
                points.append(point)
                if len(points) == count:
                    return points
        spacing *= 0.95
