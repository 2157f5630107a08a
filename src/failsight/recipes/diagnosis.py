"""`failsight doctor`: does this machine render, and are its threads pinned?"""

from __future__ import annotations

import os

from threadpoolctl import threadpool_info

from failsight.core.types import EpisodeKey
from failsight.recipes.adapters import make_sim
from failsight.recipes.collecting import versions


def diagnose() -> list[tuple[str, str]]:
    """Rows of (check, result)."""
    rows = [(name, version) for name, version in versions().items()]
    rows.append(("MUJOCO_GL", os.environ.get("MUJOCO_GL", "not set (egl is chosen on a headless Linux)")))
    rows.append(("rendering", _rendering()))
    for pool in threadpool_info():
        name = f"{pool['user_api']} threads ({pool['internal_api']})"
        advice = "" if pool["num_threads"] == 1 else "; a monitor process wants OMP_NUM_THREADS=1"
        rows.append((name, f"{pool['num_threads']}{advice}"))
    return rows


def _rendering() -> str:
    try:
        sim = make_sim("tabletop")
        sim.reset(options={"key": EpisodeKey(seed=0, task="pick-red-cube-left", episode=0)})
        shape = sim.observe()["observation.images.agent"].shape
        sim.close()
    except Exception as error:  # the point of the check is to say what went wrong
        return f"failed: {error}. On Debian: apt-get install libegl1 libgl1-mesa-dri, or set MUJOCO_GL=osmesa"
    return f"works, {shape[0]} x {shape[1]} px"
