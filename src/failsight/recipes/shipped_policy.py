"""`failsight train-policy --recipe tabletop`: expert demonstrations -> trained checkpoint -> success table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from failsight.core.errors import UnknownNameError
from failsight.core.types import EpisodeKey, Outcome
from failsight.policies.vla.design import AuxiliaryConfig, BackboneConfig, HeadConfig, HistoryConfig
from failsight.policies.vla.store import load_model, save_model
from failsight.recipes.demonstrate.data_set import Curriculum, demonstration_data
from failsight.runtime.bench import Bench
from failsight.runtime.loop import run_episode
from failsight.runtime.pool import run_pool
from failsight.runtime.streak import ErrorStreak
from failsight.runtime.trace import Trace
from failsight.training.config import TrainConfig
from failsight.training.options import Augment, FitConfig
from failsight.workflows.plans import make_plan, tasks_of
from failsight.workflows.train import train
from failsight.workflows.wiring import make_bench

Progress = Callable[[int, Mapping[str, float]], None]
_TABLE_SEED = 11
GRASP_AUGMENT = Augment(shift_px=0, gain=0.25, tint=0.10, offset=0.08)
"""No shift: it moves what is grasped and leaves the action where it was."""
_FIT = FitConfig(steps=9000, batch=128, precision="bf16", best_by="last", threads=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    """A complete training of the shipped cell: data and schedule."""

    name: str
    episodes: int
    fit: FitConfig
    stop: int | None = None
    """Leave after this step, the schedule unchanged (an undertrained policy); a multiple of `fit.save_every`."""
    sim: str = "tabletop"
    workers: int = 2
    trials: int = 10
    """Episodes per task of the success tables."""

    @property
    def last_step(self) -> int:
        """Step after which the checkpoint is taken."""
        return self.stop or self.fit.steps

    def options(self) -> TrainConfig:
        """The cell: one frame in which everything sees everything, an ensemble with a flow field, five of ten actions
        executed per inference; the features must tell where target, goal and post are.
        """
        return TrainConfig(
            backbone=BackboneConfig(attention="joint"),
            head=HeadConfig(kind="ensemble", width=256, depth=3),
            history=HistoryConfig(kind="one-step", window=1, stride=5),
            fit=self.fit,
            augment=GRASP_AUGMENT,
            chunk=10,
            scheme="identity",
            clip=False,
            arm_loss="l1",
            auxiliary=AuxiliaryConfig(offsets=9, flags=2),
            validation_share=0.04,
        )


def tabletop() -> TrainRecipe:
    """The strong policy: 1,200 demonstrations, 9,000 steps."""
    return TrainRecipe(name="tabletop", episodes=1200, fit=_FIT)


def tabletop_weak() -> TrainRecipe:
    """The weak policy: the same training stopped at step 2,500, which was chosen by its success rate."""
    return TrainRecipe(name="tabletop-weak", episodes=1200, fit=_FIT, stop=2500)


def tabletop_smoke() -> TrainRecipe:
    """A few steps on a few episodes, to see that everything works."""
    fit = replace(_FIT, steps=20, batch=32, evaluate_every=10, save_every=10, warmup=5)
    return TrainRecipe(name="tabletop-smoke", episodes=12, fit=fit, trials=1)


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


def train_policy(recipe: TrainRecipe, folder: Path, collected: Callable[[int], None], progress: Progress) -> Path:
    """Collect (once), train (resuming after a kill) and write `folder/checkpoint`; returns that path."""
    began = time.monotonic()
    place, seed = folder / "demonstrations", recipe.fit.seed
    demonstration_data(
        Curriculum(sim=recipe.sim, demonstrations=recipe.episodes, seed=seed), place, recipe.workers, collected
    )
    fitted = train(place, recipe.options(), folder, progress=progress, stop_at=recipe.stop)
    checkpoint = folder / "checkpoint"
    facts = {
        "command": f"failsight train-policy --recipe {recipe.name}",
        "seed": seed,
        "demonstrations": recipe.episodes,
        "steps": recipe.fit.steps,
        "stopped_at": recipe.last_step,
    }
    _keep(fitted.last, checkpoint, facts)
    tables = {mix: success_table(recipe, checkpoint, mix) for mix in ("clean", "default")}
    _keep(fitted.last, checkpoint, {**facts, "success": tables})
    wall_s = round(time.monotonic() - began)
    (folder / "training.json").write_text(json.dumps({"wall_s": wall_s, "success": tables}))
    return checkpoint


def _keep(last: Path, checkpoint: Path, facts: Mapping[str, object]) -> None:
    """The policy without what a training needs to go on, and where it comes from."""
    model = load_model(last)
    save_model(model, replace(model.config, provenance={**model.config.provenance, **facts}), checkpoint)


def success_table(recipe: TrainRecipe, checkpoint: Path, mix: str) -> dict[str, str]:
    """Successes of the recipe's trials per task under a mix, `"9/10"` per task and over all; seed 11."""
    keys = make_plan(recipe.sim, (), [_TABLE_SEED], recipe.trials, mix)
    counts = {task: [0, 0] for task in (*tasks_of(recipe.sim), "all")}
    build = partial(make_bench, recipe.sim, str(checkpoint))
    streak = ErrorStreak()
    for key, trace in run_pool(build, _end_of, list(keys), recipe.workers):
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
