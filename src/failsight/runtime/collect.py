"""Collection: a plan of episode keys, worker processes that own simulator and policy, crash-safe and resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from failsight.core.contracts import Policy, Sim
from failsight.core.errors import FailsightError, StorageError
from failsight.core.rng import keyed_rng
from failsight.core.types import EpisodeKey, Outcome, Task
from failsight.episodes.meta import EpisodeMeta, RunMeta
from failsight.episodes.recorder import EpisodeRecorder, clear_recordings, committed_tickets, episode_folder
from failsight.episodes.run import Run, is_sealed
from failsight.episodes.seal import clear_leftovers, read_episode_meta, seal
from failsight.runtime.bench import Bench
from failsight.runtime.loop import run_episode
from failsight.runtime.pool import run_pool
from failsight.runtime.streak import SIMULATOR_RESET, ErrorStreak
from failsight.storage.lock import holds_files, writing_alone
from failsight.storage.video import frames_per_second


def record_episode(root: Path, video_share: float, bench: Bench, ticket: tuple[int, EpisodeKey]) -> EpisodeMeta:
    """Run and commit one episode. A crash inside is recorded as errored, never as failed."""
    number, key = ticket
    filmed = float(keyed_rng(*key.parts, "video").random()) < video_share
    sizes = {name: (height, width) for name, height, width in bench.sim.observation_spec.cameras}
    fps = frames_per_second(bench.sim.action_spec.rate_hz)
    recorder = EpisodeRecorder(root, number, fps, sizes if filmed else None, bench.judge)
    began = time.monotonic()
    try:
        loop = bench.loop(recorder)
    except FailsightError:
        recorder.abandon()
        raise
    try:
        run_episode(loop, key)
    except StorageError:
        recorder.abandon()
        raise
    except Exception:
        pass  # the loop has stopped, latched and kept the reason
    outcome, error = loop.trace.outcome or Outcome.ERRORED, loop.trace.error
    loop.release(by=SIMULATOR_RESET)
    task = _task(bench.sim, key)
    meta = EpisodeMeta(
        ticket=number,
        seed=key.seed,
        task=key.task,
        episode=key.episode,
        condition=key.condition,
        instruction=task.instruction,
        horizon=task.horizon,
        outcome=outcome,
        length=recorder.steps,
        policy=bench.policy.fingerprint,
        wall_s=time.monotonic() - began,
        error=error,
        video=filmed and recorder.steps > 0,
    )
    recorder.commit(meta)
    return meta


def _task(sim: Sim, key: EpisodeKey) -> Task:
    """The task as the simulator set it; as it lists it when it broke before it could."""
    try:
        if sim.task.id == key.task:
            return sim.task
    except Exception:
        pass
    known = {task.id: task for task in sim.tasks()}
    return known.get(key.task) or Task(id=key.task, suite="", instruction=key.task, horizon=0)


def prepare(root: Path, meta: RunMeta, resume: bool) -> list[tuple[int, EpisodeKey]]:
    """Check the folder and return the tickets still to do.

    Raises FailsightError when the folder holds another run, or a run and `resume` is False.
    """
    path = root / "meta/failsight/run.json"
    if path.is_file():
        if not resume:
            raise FailsightError(f"{root} already holds a run. Add --resume to finish it, or choose another --out.")
        old = RunMeta.read(path)
        for name in ("plan", "policy", "sim", "video_share", "bundle", "arm"):
            if getattr(old, name) != getattr(meta, name):
                raise FailsightError(
                    f"{root} was started with another {name}; resume with the same settings or choose another --out."
                )
        if is_sealed(root):
            clear_leftovers(root)
            return []
    elif holds_files(root):
        raise FailsightError(f"{root} is not empty and not a failsight run; choose another --out.")
    if not path.is_file():
        meta.write(path)
    clear_recordings(root, partial_only=True)
    done = set(committed_tickets(root))
    return [(i, key) for i, key in enumerate(meta.plan) if i not in done]


def committed(root: Path) -> list[EpisodeMeta]:
    """Metas of the episodes a resumed run already has."""
    if is_sealed(root):
        return list(Run(root).episodes)
    return [read_episode_meta(episode_folder(root, ticket)) for ticket in committed_tickets(root)]


def collect(
    root: Path, meta: RunMeta, build: Callable[[], Bench], workers: int, resume: bool = False
) -> Iterator[EpisodeMeta]:
    """Run the plan, yielding each new episode as it is committed; seals the run at the end.

    Raises StorageError when another process is writing this run, FailsightError after five errored episodes in a row.
    """
    with writing_alone(root):
        tickets, streak = prepare(root, meta, resume), ErrorStreak()
        work = partial(record_episode, root, meta.video_share)
        for _, done in run_pool(build, work, tickets, workers):
            yield done
            streak.saw(done.outcome, done.error)
        if not is_sealed(root):
            seal(root)


def tensor_shapes(policy: Policy, sim: Sim, key: EpisodeKey) -> dict[str, tuple[int, ...]]:
    """True shapes of the tensors this policy returns, from one inference."""
    sim.reset(options={"key": key})
    policy.reset(sim.task, key)
    output = policy.infer(sim.observe(), 0)
    values = {name: getattr(output, name) for name in ("chunk", "hidden", "samples", "members", "failure")}
    return {f"policy.{name}": tuple(np.shape(v)) for name, v in values.items() if v is not None}
