"""Declarative perturbations: what each kind does at levels 0 to 5, every draw keyed by the episode.

| kind | persistent? | level 5 |
|---|---|---|
| object_pose | yes | layout region 10 cm wider, objects down to 5 cm apart, a stray post 5 to 7.5 cm from the target |
| camera_pose | yes | agent camera moved by about 6 cm, wrist camera by about 1 cm |
| light | yes | lamp and ambient up to 0.9 brighter or darker, tinted |
| background | yes | table and ground recoloured completely |
| sensor_noise | yes | Gaussian pixel noise, standard deviation 40 of 255, fresh every frame, both cameras |
| robot_start | yes | start pose off by 8 cm and 0.5 rad |
| action_noise | yes | Gaussian, standard deviation 0.6 of full action, fresh every step |
| push | no | the target is knocked at 2.5 m/s as it is first lifted |
| slippery | yes | friction of all objects 0.06 instead of 1 |
| paraphrase | yes | instruction reworded with unseen words |
| gripper_fault | no | the gripper opens for 15 steps in the middle of the carry |

Whether a cause stays or passes decides what a retry can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from failsight.core.errors import UnknownNameError
from failsight.core.rng import keyed_rng
from failsight.core.types import Array, EpisodeKey, Perturbation

KINDS = (
    "object_pose",
    "camera_pose",
    "light",
    "background",
    "sensor_noise",
    "robot_start",
    "action_noise",
    "push",
    "slippery",
    "paraphrase",
    "gripper_fault",
)

_FRICTION = (1.0, 0.30, 0.15, 0.09, 0.07, 0.06)
_ACTION_NOISE = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """The physical amounts an episode's perturbations come to; drawn once at reset."""

    region_m: float
    spacing_m: float
    stray_post_m: float
    """Distance of a stray post from the target; 0: no stray post."""
    camera_offset_m: Array
    """(2, 3) agent and wrist camera translation."""
    light_gain: Array
    """(3,) colour gain of all light."""
    background: Array
    """(2, 3) colours of table and ground, and how much of them to mix in lies in `background_mix`."""
    background_mix: float
    pixel_noise: float
    start_offset: Array
    """(6,) x y z (m), yaw pitch roll (rad)."""
    action_noise: float
    push_m_s: Array
    """(3,) velocity given to the target when first lifted."""
    friction: float
    paraphrase: int
    fault_steps: int
    fault_delay: int
    """Steps between lifting and the opening of a faulty gripper."""


def levels(perturbations: Sequence[Perturbation]) -> dict[str, int]:
    """Level of every kind, 0 where absent. Raises UnknownNameError for a kind that does not exist."""
    result = dict.fromkeys(KINDS, 0)
    for perturbation in perturbations:
        if perturbation.kind not in result:
            raise UnknownNameError("perturbation", perturbation.kind, KINDS)
        result[perturbation.kind] = perturbation.level
    return result


def disturb(key: EpisodeKey) -> Disturbance:
    """The amounts for an episode; depends on the key alone."""
    level = levels(key.perturbations)
    rng = {kind: keyed_rng(*key.parts, "perturbation", kind) for kind in KINDS}
    angle = rng["push"].uniform(0, 2 * np.pi)
    tint = rng["light"].uniform(-0.15, 0.15, 3) + rng["light"].choice([-1.0, 1.0]) * 0.18
    camera = rng["camera_pose"].normal(size=(2, 3))
    camera /= np.linalg.norm(camera, axis=1, keepdims=True)
    return Disturbance(
        region_m=0.02 * level["object_pose"],
        stray_post_m=0.10 - 0.01 * level["object_pose"] if level["object_pose"] else 0.0,
        spacing_m=0.085 - 0.007 * level["object_pose"],
        camera_offset_m=camera * level["camera_pose"] * np.array([[0.012], [0.002]]),
        light_gain=np.clip(1 + tint * level["light"], 0.1, 2.0),
        background=rng["background"].uniform(0.05, 0.95, (2, 3)),
        background_mix=level["background"] / 5,
        pixel_noise=8.0 * level["sensor_noise"],
        start_offset=rng["robot_start"].uniform(-1, 1, 6)
        * level["robot_start"]
        * np.array([0.016, 0.016, 0.008, 0.10, 0.02, 0.02]),
        action_noise=_ACTION_NOISE[level["action_noise"]],
        push_m_s=0.5 * level["push"] * np.array([np.cos(angle), np.sin(angle), 0.0]),
        friction=_FRICTION[level["slippery"]],
        paraphrase=level["paraphrase"],
        fault_steps=3 * level["gripper_fault"],
        fault_delay=int(rng["gripper_fault"].integers(6, 24)),
    )
