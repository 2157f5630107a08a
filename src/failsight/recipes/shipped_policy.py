"""`failsight train-policy --recipe tabletop`: expert demonstrations -> trained checkpoint -> success table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from failsight.core.errors import UnknownNameError
from failsight.core.specs import ObservationSpec
from failsight.core.types import EpisodeKey, Outcome
from failsight.policies.vla.checkpoint import save_checkpoint
from failsight.policies.vla.config import TinyConfig, vocabulary_of
from failsight.policies.vla.policy import state_statistics
from failsight.recipes.demonstrate.tabletop import CHUNK, collect_demonstrations
from failsight.runtime.bench import Bench
from failsight.runtime.loop import run_episode
from failsight.runtime.pool import run_pool
from failsight.runtime.streak import ErrorStreak
from failsight.runtime.trace import Trace
from failsight.sims.tabletop.env import ACTION_SPEC, STATE_NAMES
from failsight.training.tiny_data import Frames, load_frames
from failsight.training.tiny_loop import Progress, TrainOptions, train
from failsight.workflows.plans import make_plan, tasks_of
from failsight.workflows.wiring import make_bench

_TABLE_SEED = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    """A complete training: data, network and schedule."""

    name: str
    episodes: int
    options: TrainOptions
    workers: int = 2
    trials: int = 10
    """Episodes per task of the success tables."""


def tabletop() -> TrainRecipe:
    """The shipped checkpoints: 1,200 demonstrations, 9,000 steps; under 30 minutes on two cores."""
    return TrainRecipe(name="tabletop", episodes=1200, options=TrainOptions(steps=9000))


def tabletop_weak() -> TrainRecipe:
    """The shipped weak checkpoint: the same training stopped at step 2,500, chosen by its success rate."""
    return TrainRecipe(name="tabletop-weak", episodes=1200, options=TrainOptions(steps=9000, stop=2500))


def tabletop_smoke() -> TrainRecipe:
    """A few steps on a few episodes, to see that everything works."""
    options = TrainOptions(steps=20, batch=32, snapshot_every=10, warmup=5)
    return TrainRecipe(name="tabletop-smoke", episodes=12, options=options, trials=1)


TRAIN_RECIPES: dict[str, Callable[[], TrainRecipe]] = {
    "tabletop": tabletop,
    "tabletop-weak": tabletop_weak,
    "tabletop-smoke": tabletop_smoke,
}


def find_train_recipe(name: str) -> TrainRecipe:
    """Raises UnknownNameError with the nearest names."""
    if name not in TRAIN_RECIPES:
        raise UnknownNameError("training recipe", name, TRAIN_RECIPES)
    return TRAIN_RECIPES[name]()


def make_config(frames: Frames, instructions: list[list[str]]) -> TinyConfig:
    """Network configuration with the statistics of the data."""
    mean, std = state_statistics(np.asarray(frames.state))
    cameras = tuple((name, int(frames.images.shape[3]), int(frames.images.shape[4])) for name in ("agent", "wrist"))
    return TinyConfig(
        vocabulary=vocabulary_of([text for texts in instructions for text in texts]),
        action_spec=ACTION_SPEC,
        observation_spec=ObservationSpec(state=STATE_NAMES, cameras=cameras),
        state_mean=tuple(float(v) for v in mean),
        state_std=tuple(float(v) for v in std),
        chunk=CHUNK,
    )


def train_policy(recipe: TrainRecipe, folder: Path, collected: Callable[[int], None], progress: Progress) -> Path:
    """Collect (once), train (resuming after a kill) and write `folder/checkpoint`; returns that path."""
    began = time.monotonic()
    demonstrations = folder / "demonstrations"
    if not (demonstrations / "instructions.json").is_file():
        collect_demonstrations(demonstrations, recipe.episodes, recipe.options.seed, recipe.workers, collected)
    frames, instructions = load_frames(demonstrations)
    config = make_config(frames, instructions)
    config = replace(
        config,
        provenance={
            "command": f"failsight train-policy --recipe {recipe.name}",
            "seed": recipe.options.seed,
            "demonstrations": recipe.episodes,
            "frames": len(frames.state),
            "data_fingerprint": frames.fingerprint,
            "steps": recipe.options.steps,
            "stopped_at": recipe.options.stop or recipe.options.steps,
        },
    )
    network = train(frames, instructions, config, recipe.options, folder, progress)
    checkpoint = folder / "checkpoint"
    save_checkpoint(network, checkpoint)
    tables = {mix: success_table(checkpoint, mix, recipe.trials, recipe.workers) for mix in ("clean", "default")}
    network.config = replace(config, provenance={**config.provenance, "success": tables})
    save_checkpoint(network, checkpoint)
    wall_s = round(time.monotonic() - began)
    (folder / "training.json").write_text(json.dumps({"wall_s": wall_s, "success": tables}))
    return checkpoint


def success_table(checkpoint: Path, mix: str, trials: int, workers: int) -> dict[str, str]:
    """Successes of `trials` episodes per task under a mix, `"9/10"` per task and over all; seed 11."""
    keys = make_plan("tabletop", (), [_TABLE_SEED], trials, mix)
    counts = {task: [0, 0] for task in (*tasks_of("tabletop"), "all")}
    build = partial(make_bench, "tabletop", str(checkpoint))
    streak = ErrorStreak()
    for key, trace in run_pool(build, _end_of, list(keys), workers):
        streak.saw(trace.outcome, trace.error)
        for row in (key.task, "all"):
            counts[row][0] += trace.outcome == Outcome.SUCCESS
            counts[row][1] += trace.outcome != Outcome.ERRORED
    return {task: f"{good}/{n}" for task, (good, n) in counts.items()}


def _end_of(bench: Bench, key: EpisodeKey) -> Trace:
    loop = bench.loop()
    with suppress(Exception):  # the loop has stopped, latched and kept the reason
        run_episode(loop, key)
    return Trace(outcome=loop.trace.outcome, error=loop.trace.error)
