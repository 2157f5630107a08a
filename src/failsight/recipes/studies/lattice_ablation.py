"""`failsight run lattice-ablation`: heads and histories on the tabletop, everything else the same.

Same demonstrations, same start, same number of windows and steps, same test episodes. History costs images: a window
of four looks at four times the frames, which the table says beside the success rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from failsight.core.types import EpisodeKey
from failsight.evaluation.claims import differs
from failsight.evaluation.intervals import Estimate, bootstrap, text_of
from failsight.evaluation.paired import mcnemar
from failsight.policies.vla.design import BackboneConfig, HeadConfig, HeadKind, HistoryConfig, HistoryKind
from failsight.recipes.demonstrate.data_set import Curriculum, demonstration_data
from failsight.recipes.shipped_policy import GRASP_AUGMENT
from failsight.recipes.studies.study import Study
from failsight.training.config import TrainConfig
from failsight.training.options import FitConfig
from failsight.workflows.closed_loop import Drive, closed_loop, success_of
from failsight.workflows.offline import validation_error
from failsight.workflows.plans import make_plan
from failsight.workflows.progress import Reporter, ticking
from failsight.workflows.train import note_success
from failsight.workflows.train_many import Job, train_many


class Cell(NamedTuple):
    """One row of the table."""

    head: HeadKind
    history: HistoryKind

    @property
    def name(self) -> str:
        """Its folder and its keys."""
        return f"{self.history}-{self.head}"


CELLS = (
    Cell("fc", "one-step"),
    Cell("flow", "one-step"),
    Cell("lstm", "policy-head"),
    Cell("gpt", "policy-head"),
    Cell("fc", "interleaved"),
    Cell("lstm", "interleaved"),
    Cell("flow", "interleaved"),
)
PAIRS = (
    ("policy-head-lstm", "one-step-fc"),
    ("interleaved-fc", "one-step-fc"),
    ("policy-head-lstm", "interleaved-fc"),
    ("policy-head-lstm", "policy-head-gpt"),
    ("one-step-fc", "one-step-flow"),
)
"""Differences that are asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatticeAblation:
    """Sizes of the study."""

    demonstrations: int = 300
    trials: int = 12
    """Closed-loop episodes per task."""
    seed: int = 31
    test_seed: int = 9100
    window: int = 4
    stride: int = 4
    sim: str = "tabletop"
    mix: str = "default"
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            backbone=BackboneConfig(family="tiny", source="tabletop-strong"),
            head=HeadConfig(width=256, depth=2),
            chunk=10,
            scheme="identity",
            arm_loss="l1",
            gripper_ratio=0.15,
            augment=GRASP_AUGMENT,
            fit=FitConfig(steps=2000, batch=32, precision="bf16", learning_rate=5e-4, evaluate_every=500),
        )
    )

    def config(self, cell: Cell) -> TrainConfig:
        """The training of one cell."""
        window = 1 if cell.history == "one-step" else self.window
        depth = 4 if cell.head == "flow" else self.train.head.depth
        return replace(
            self.train,
            head=replace(self.train.head, kind=cell.head, depth=depth),
            history=HistoryConfig(kind=cell.history, window=window, stride=self.stride),
        )


def smoke() -> LatticeAblation:
    """As small as it gets with every stage real; for tests."""
    full = LatticeAblation()
    fit = replace(full.train.fit, steps=2, batch=2, evaluate_every=2, save_every=2, warmup=1)
    return replace(full, demonstrations=4, trials=1, train=replace(full.train, fit=fit))


def run_lattice_ablation(
    folder: Path,
    workers: int,
    reporter: Reporter,
    options: LatticeAblation | None = None,
    cells: Sequence[Cell] = CELLS,
) -> Path:
    """Everything, or the rest of an interrupted run; returns the report's path."""
    options = options or LatticeAblation()
    study = Study(
        name="lattice-ablation",
        question="Which head and which history, with the same data, start and number of training windows?",
        seeds={"demonstrations": options.seed, "closed_loop": options.test_seed},
    )
    reporter.stage("1/3  demonstrations")
    progress = ticking(reporter.count(options.demonstrations), "")
    demonstration_data(
        Curriculum(sim=options.sim, demonstrations=options.demonstrations, seed=options.seed),
        folder / "data",
        workers,
        progress,
    )
    reporter.stage(f"2/3  train {len(cells)} cells")
    jobs = [Job(cell.name, folder / "data", options.config(cell), folder / cell.name) for cell in cells]
    fitted = train_many(jobs, workers, reporter)
    reporter.stage("3/3  the same test episodes for all of them")
    keys = make_plan(options.sim, (), [options.test_seed], options.trials, options.mix)
    drives = {}
    for cell in cells:
        tick = ticking(reporter.count(len(keys)), cell.name)
        kept = folder / cell.name / "drives.jsonl"
        drives[cell.name] = closed_loop(fitted[cell.name].best, options.sim, keys, workers, progress=tick, keep=kept)
        note_success(folder / cell.name, {"success": success_of(drives[cell.name]).as_dict(), "simulator": options.sim})
    _summarise(study, folder, options, cells, keys, drives)
    return study.write(folder)


def _summarise(
    study: Study,
    folder: Path,
    options: LatticeAblation,
    cells: Sequence[Cell],
    keys: Sequence[EpisodeKey],
    drives: dict[str, list[Drive]],
) -> None:
    rows = []
    clean = [i for i, key in enumerate(keys) if key.condition == "none"]
    for cell in cells:
        found = drives[cell.name]
        success = study.figure(f"{cell.name}_success", success_of(found))
        unperturbed = study.figure(f"{cell.name}_success_clean", success_of([found[i] for i in clean]))
        loss = study.figure(
            f"{cell.name}_loss", validation_error(folder / cell.name / "best", folder / "data", "validation")
        )
        study.bar(f"{cell.history}, {cell.head}", success)
        study.curve(cell.name, folder / cell.name)
        frames = 1 if cell.history == "one-step" else options.window
        rows.append([cell.history, cell.head, str(frames), text_of(success), text_of(unperturbed), text_of(loss)])
    study.table(
        f"{options.demonstrations} demonstrations, {options.train.fit.steps} steps of {options.train.fit.batch} windows",
        ("history", "head", "frames per window", "success", "of it without perturbation", "validation loss"),
        rows,
    )
    study.remarks.append("Flow losses are squared errors of a velocity field and do not compare with the others.")
    names = {cell.name for cell in cells}
    differences = []
    for first, second in PAIRS:
        if {first, second} <= names:
            estimate, p = paired_difference(drives[first], drives[second], ("lattice", first, second))
            study.figure(f"{first}_minus_{second}", estimate)
            shown = differs(estimate)
            study.claim(f"{first} and {second} differ in success", shown, f"{text_of(estimate)}, McNemar p {p:.3f}")
            differences.append([f"{first} minus {second}", text_of(estimate), f"{p:.3f}"])
    study.table(
        "Paired differences in success on the same episodes", ("difference", "success", "McNemar p"), differences
    )


def paired_difference(first: Sequence[Drive], second: Sequence[Drive], key: tuple[str, ...]) -> tuple[Estimate, float]:
    """Success of the first minus the second with a bootstrap interval over episodes, and McNemar's exact p."""
    values = np.array([float(a.success) - float(b.success) for a, b in zip(first, second, strict=True)])
    estimate = bootstrap(lambda rows: float(values[rows].mean()), [d.key.task for d in first], key)
    return estimate, mcnemar(int((values > 0).sum()), int((values < 0).sum()))
