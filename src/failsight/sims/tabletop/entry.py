"""The tabletop by name: twelve tasks, eleven perturbations, an expert, labels with failure types."""

from failsight.core.sim_entry import SimEntry
from failsight.sims.tabletop.perturbations import KINDS
from failsight.sims.tabletop.tasks import TASKS

ENTRY = SimEntry(
    make="failsight.sims.tabletop.env:TabletopEnv",
    operator="failsight.sims.tabletop.operator:TabletopOperator",
    demonstrator="failsight.sims.tabletop.demonstrator:TabletopDemonstrator",
    tasks=tuple(TASKS),
    kinds=KINDS,
    mixes={
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
    },
    look={"x_m": 0.0, "y_m": 0.0, "z_m": 0.22},
    labeler="events",
    targets={task.id: task.target for task in TASKS.values()},
)
