"""`failsight doctor`: does this machine render, are its packages there and its threads pinned?"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

from threadpoolctl import threadpool_info

from failsight.core.errors import RenderingError
from failsight.core.registry import claims
from failsight.core.types import EpisodeKey
from failsight.episodes.formats import DEMONSTRATION_GROUP, DEMONSTRATIONS, LOG_GROUP, LOGS
from failsight.evaluation.provenance import versions
from failsight.interventions.arms import ARMS
from failsight.policies import POLICIES
from failsight.predictors.detectors import DETECTORS
from failsight.sims import SIMS
from failsight.workflows.wiring import make_sim

GROUPS: Mapping[str, Collection[str]] = {
    "failsight.sims": SIMS,
    "failsight.policies": POLICIES,
    "failsight.detectors": DETECTORS,
    "failsight.interventions": ARMS,
    LOG_GROUP: LOGS,
    DEMONSTRATION_GROUP: DEMONSTRATIONS,
}
"""Entry-point groups of other packages -> the names in them that are ours."""


class Check(NamedTuple):
    """One line of the doctor."""

    name: str
    result: str
    advice: str = ""
    """What to do; empty: nothing is wrong."""


def diagnose() -> list[Check]:
    """Every check, the failed ones with advice. Missing torch is no fault: only training needs it."""
    checks = [Check(name, version) for name, version in versions().items()]
    if "torch" not in versions():
        checks.append(Check("torch", "not installed; training and fitting need it: pip install 'failsight[train]'"))
    checks.append(Check("MUJOCO_GL", os.environ.get("MUJOCO_GL", "not set (egl is chosen on a headless Linux)")))
    checks.append(_rendering())
    checks += _packages()
    for pool in threadpool_info():
        hint = "" if pool["num_threads"] == 1 else "; a monitor process wants OMP_NUM_THREADS=1"
        checks.append(Check(f"{pool['user_api']} ({pool['internal_api']})", f"{pool['num_threads']} threads{hint}"))
    return checks


def _packages() -> list[Check]:
    """What other installed packages bring, and which of their names are ours already."""
    return [
        Check(
            f"{group}: {claim.name}",
            f"{claim.address} of {claim.package}"
            + ("; the name is failsight's own and means that, use the address" if claim.name in names else ""),
        )
        for group, names in GROUPS.items()
        for claim in claims(group)
    ]


def _rendering() -> Check:
    try:
        sim = make_sim("tabletop")
        sim.reset(options={"key": EpisodeKey(seed=0, task="pick-red-cube-left", episode=0)})
        shape = sim.observe()["observation.images.agent"].shape
        sim.close()
    except RenderingError as error:
        return Check("rendering", "failed", str(error).removesuffix(" Check with: failsight doctor"))
    return Check("rendering", f"works, {shape[0]} x {shape[1]} px")
