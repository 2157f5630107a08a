"""The navigation room by name, with three action dimensions or two."""

from dataclasses import replace

from failsight.core.sim_entry import SimEntry
from failsight.sims.navigation.scenarios import KINDS, SCENARIOS

ENTRY = SimEntry(
    make="failsight.sims.navigation.env:NavigationEnv",
    operator="failsight.sims.navigation.expert:NavigationExpert",
    demonstrator="failsight.sims.navigation.demonstrator:NavigationDemonstrator",
    tasks=SCENARIOS,
    kinds=KINDS,
    mixes={
        "default": {
            "none": 2.0,
            "start_pose:4": 1.0,
            "wheel_slip:4": 1.0,
            "bottle_pose:4": 1.0,
            "light:4": 0.5,
            "push:4": 1.0,
        },
    },
    labeler="driving",
)
PLANAR = replace(ENTRY, make="failsight.sims.navigation.env:planar")
