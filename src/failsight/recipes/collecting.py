"""Collect and label: a named policy in a named simulator -> a sealed, labelled run."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import failsight
from failsight.core.types import EpisodeKey
from failsight.episodes.meta import EpisodeMeta, RunMeta
from failsight.episodes.run import Run
from failsight.labels.table import label_run
from failsight.recipes.adapters import make_bench, make_labeler, make_policy, make_sim
from failsight.runtime.collect import collect, committed, tensor_shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectOptions:
    """What to collect and how."""

    policy: str = "tabletop-strong"
    sim: str = "tabletop"
    workers: int = 2
    video_share: float = 0.0
    note: str = ""
    resume: bool = False


def versions() -> dict[str, str]:
    """Versions that can change a result, of what is installed."""
    found = {}
    for name in ("numpy", "torch", "mujoco", "pyarrow"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {"failsight": failsight.__version__, "python": platform.python_version(), **found}


def commit() -> str:
    """The git commit of this code, "unknown" outside a checkout."""
    try:
        return subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def collect_run(
    root: Path,
    plan: Sequence[EpisodeKey],
    options: CollectOptions,
    progress: Callable[[EpisodeMeta, bool], None],
) -> Run:
    """Collect (or finish) the plan, seal it and label it.

    `progress` is called for every episode with its meta and whether it had been there already.
    """
    policy, sim = make_policy(options.policy), make_sim(options.sim)
    meta = RunMeta(
        action_spec=policy.action_spec,
        observation_spec=policy.observation_spec,
        policy=policy.fingerprint,
        sim=options.sim,
        plan=tuple(plan),
        shapes=tensor_shapes(policy, sim, plan[0]),
        versions=versions(),
        note=options.note,
        video_share=options.video_share,
    )
    sim.close()
    if options.resume:
        for old in committed(root):
            progress(old, True)
    build = partial(make_bench, options.sim, options.policy)
    for done in collect(root, meta, build, options.workers, options.resume):
        progress(done, False)
    run = Run(root)
    label_run(run, make_labeler(run))
    return run
