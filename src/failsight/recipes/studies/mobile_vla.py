"""`failsight run mobile-vla`: the Mobile-VLA workflow end to end, and whether the policy generalises or remembers.

250 recordings of the navigation expert in six of eight scenarios -> HDF5 -> frozen backbone, low-rank updates, LSTM
head over a window of 8, chunks of 10 -> closed loop in seen and held-out scenarios, without its instruction, with
another one, with a frozen past; the same with two action dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from failsight.core.types import EpisodeKey
from failsight.evaluation.intervals import bootstrap, text_of
from failsight.policies.vla.design import BackboneConfig, HeadConfig, HistoryConfig
from failsight.recipes.demonstrate.recordings import demonstrate
from failsight.recipes.studies.study import Study
from failsight.training.config import TrainConfig
from failsight.training.options import Augment, FitConfig
from failsight.workflows.audit import audit_data
from failsight.workflows.closed_loop import CHANGES, Change, Drive, by_task, closed_loop, collided, obeyed, success_of
from failsight.workflows.data_sets import open_data
from failsight.workflows.offline import judge_memory, validation_error
from failsight.workflows.progress import Reporter, ticking
from failsight.workflows.train import note_success
from failsight.workflows.train_many import Job, train_many
from failsight.workflows.wiring import find_demonstrator, find_sim

HELD_OUT = ("2box_vert_left", "1box_hori_right")


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileVLA:
    """Sizes of the study."""

    episodes: int = 250
    held_out_recordings: int = 40
    trials: int = 20
    """Closed-loop episodes per scenario."""
    change_trials: int = 10
    seed: int = 5
    test_seed: int = 9001
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            backbone=BackboneConfig(family="tiny", source="tabletop-strong", tuning="lora", lora_rank=16),
            head=HeadConfig(kind="lstm", width=192, depth=1),
            history=HistoryConfig(kind="policy-head", window=8, stride=1),
            chunk=10,
            use_state=False,
            scheme="min-max",
            augment=Augment(),
            fit=FitConfig(steps=1000, batch=32, precision="bf16", evaluate_every=250, save_every=250, warmup=50),
        )
    )


def smoke() -> MobileVLA:
    """As small as it gets with every stage real; for tests."""
    full = MobileVLA()
    fit = replace(full.train.fit, steps=6, batch=4, evaluate_every=3, save_every=3, warmup=1)
    return replace(
        full, episodes=6, held_out_recordings=2, trials=1, change_trials=1, train=replace(full.train, fit=fit)
    )


class Arm(NamedTuple):
    """One trained policy of the study."""

    name: str
    dimensions: int

    @property
    def sim(self) -> str:
        """The simulator with as many action dimensions."""
        return "navigation" if self.dimensions == 3 else "navigation-2d"


ARMS = (Arm("3d", 3), Arm("2d", 2))


def seen_tasks() -> tuple[str, ...]:
    """The scenarios that are not held out."""
    return tuple(name for name in find_sim(ARMS[0].sim).tasks if name not in HELD_OUT)


def run_mobile_vla(folder: Path, workers: int, reporter: Reporter, options: MobileVLA | None = None) -> Path:
    """Everything, or the rest of an interrupted run; returns the report's path."""
    options = options or MobileVLA()
    study = Study(
        name="mobile-vla",
        question="Does a small VLA trained on 250 recorded drives reach the bottle, where it has been and where it has not?",
        seeds={"recordings": options.seed, "closed_loop": options.test_seed},
    )
    reporter.stage("1/4  record the expert")
    for arm in ARMS:
        _record(folder, arm, options, workers, reporter)
    reporter.stage("2/4  train with three and with two action dimensions")
    fitted = train_many([_job(folder, arm, options) for arm in ARMS], workers, reporter)
    reporter.stage("3/4  drive in seen and held-out scenarios")
    drives = {arm.name: _drive_all(fitted[arm.name].best, arm, options, workers, reporter) for arm in ARMS}
    reporter.stage("4/4  take something away: instruction, past")
    changed = _changes(fitted["3d"].best, options, workers, reporter)
    _summarise(study, folder, options, drives, changed)
    return study.write(folder)


def _record(folder: Path, arm: Arm, options: MobileVLA, workers: int, reporter: Reporter) -> None:
    plans: tuple[tuple[str, int, Sequence[str], int], ...] = (
        ("recordings", options.episodes, seen_tasks(), options.seed),
        ("held-out", options.held_out_recordings, HELD_OUT, options.seed + 1),
    )
    for kind, count, scenarios, seed in plans:
        target = folder / f"{kind}-{arm.name}"
        demonstrate(
            arm.sim,
            target,
            count,
            seed=seed,
            tasks=scenarios,
            workers=workers,
            progress=ticking(reporter.count(count), f"{arm.dimensions}-D"),
        )
        open_data(target, phrasings=find_demonstrator(arm.sim).phrasings)


def _job(folder: Path, arm: Arm, options: MobileVLA) -> Job:
    dims = ("linear_x", "linear_y", "angular_z")[: arm.dimensions]
    return Job(arm.name, folder / f"recordings-{arm.name}", replace(options.train, action_dims=dims), folder / arm.name)


def _keys(scenarios: Sequence[str], trials: int, seed: int) -> list[EpisodeKey]:
    return [EpisodeKey(seed=seed, task=name, episode=i) for name in scenarios for i in range(trials)]


def _drive_all(
    checkpoint: Path, arm: Arm, options: MobileVLA, workers: int, reporter: Reporter
) -> dict[str, list[Drive]]:
    found = {}
    for group, scenarios in (("seen", seen_tasks()), ("held_out", HELD_OUT)):
        keys = _keys(scenarios, options.trials, options.test_seed)
        progress = ticking(reporter.count(len(keys)), f"{arm.name} {group.replace('_', ' ')}")
        kept = checkpoint.parent / "drives.jsonl"
        found[group] = closed_loop(checkpoint, arm.sim, keys, workers, progress=progress, keep=kept)
    return found


def _changes(checkpoint: Path, options: MobileVLA, workers: int, reporter: Reporter) -> dict[Change, list[Drive]]:
    keys = _keys(seen_tasks(), options.change_trials, options.test_seed)
    tick = reporter.count(len(keys) * (len(CHANGES) - 1))
    return {
        change: closed_loop(
            checkpoint, ARMS[0].sim, keys, workers, change, ticking(tick, change), checkpoint.parent / "drives.jsonl"
        )
        for change in CHANGES[1:]
    }


def _summarise(
    study: Study,
    folder: Path,
    options: MobileVLA,
    drives: dict[str, dict[str, list[Drive]]],
    changed: dict[Change, list[Drive]],
) -> None:
    rows = []
    for arm in ARMS:
        seen, held = drives[arm.name]["seen"], drives[arm.name]["held_out"]
        best = folder / arm.name / "best"
        figures = {
            "success_seen": success_of(seen),
            "success_held_out": success_of(held),
            "side_seen": obeyed(seen),
            "collisions": collided(seen + held),
            "training_loss": validation_error(best, folder / f"recordings-{arm.name}", "train"),
            "validation_loss": validation_error(best, folder / f"recordings-{arm.name}", "validation"),
            "held_out_loss": validation_error(best, folder / f"held-out-{arm.name}", "all"),
        }
        for key, value in figures.items():
            study.figure(f"{arm.name}_{key}", value)
        memory = judge_memory(
            figures["training_loss"], figures["held_out_loss"], figures["success_seen"], figures["success_held_out"]
        )
        study.claim(f"Does more than remember ({arm.dimensions}-D)", not memory.remembers, memory.sentence)
        study.bar(f"{arm.dimensions}-D, seen", figures["success_seen"])
        study.bar(f"{arm.dimensions}-D, held out", figures["success_held_out"])
        study.curve(f"{arm.dimensions}-D", folder / arm.name)
        rows.append([f"{arm.dimensions}-D", *(text_of(value) for value in figures.values())])
        note_success(
            folder / arm.name,
            {
                "success": success_of(seen).as_dict(),
                "success_held_out": success_of(held).as_dict(),
                "simulator": arm.sim,
            },
        )
    columns = ("actions", "success, seen", "success, held out", "told side taken", "collided")
    study.table(
        "Closed loop and loss (Huber, normalised actions)",
        (*columns, "loss, trained on", "held-out episodes", "held-out scenarios"),
        rows,
    )
    _difference(study, drives)
    _memory(study, options, drives["3d"]["seen"], changed)
    study.table(
        "Success per scenario, 3-D",
        ("scenario", "success"),
        [[task, text_of(e)] for group in ("seen", "held_out") for task, e in by_task(drives["3d"][group]).items()],
    )
    for line in audit_data(
        open_data(folder / "recordings-2d", phrasings=find_demonstrator(ARMS[1].sim).phrasings)
    ).warnings:
        study.remarks.append(f"Recordings with two dimensions: {line}")
    success = success_of(drives["3d"]["seen"])
    study.claim("Reaches the bottle in at least 80 % of seen scenarios", success.value >= 0.8, text_of(success))


def _difference(study: Study, drives: dict[str, dict[str, list[Drive]]]) -> None:
    """3-D minus 2-D on the same layouts."""
    pairs = [
        (float(a.success) - float(b.success), a.key.task)
        for group in ("seen", "held_out")
        for a, b in zip(drives["3d"][group], drives["2d"][group], strict=True)
    ]
    values = np.array([p[0] for p in pairs])
    estimate = bootstrap(lambda rows: float(values[rows].mean()), [p[1] for p in pairs], ("mobile-vla", "3d-2d"))
    study.figure("success_3d_minus_2d", estimate)
    study.remarks.append(f"Success with three dimensions minus two, same layouts, paired: {text_of(estimate)}.")


def _memory(study: Study, options: MobileVLA, plain: Sequence[Drive], changed: dict[Change, list[Drive]]) -> None:
    """What is left without instruction, with another one, and with a frozen past."""
    first = [d for d in plain if d.key.episode < options.change_trials]
    rows = [["as it is", text_of(success_of(first)), text_of(obeyed(first))]]
    for change, found in changed.items():
        success, side = success_of(found), obeyed(found)
        study.figure(f"success_{change.replace('-', '_')}", success)
        study.bar(f"3-D, {change.replace('-', ' ')}", success)
        study.figure(f"side_{change.replace('-', '_')}", side)
        rows.append([change.replace("-", " "), text_of(success), text_of(side)])
    study.table(
        "With something taken away (3-D, seen scenarios)", ("policy", "success", "passed on the task's side"), rows
    )
    side = obeyed(changed["swapped-instruction"])
    study.claim(
        "Listens to its instruction",
        side.high < obeyed(first).low,
        f"with the other side's instruction it takes its task's side in {text_of(side)}, otherwise in {text_of(obeyed(first))}",
    )
    frozen = success_of(changed["frozen-history"])
    study.claim(
        "Uses its past", frozen.high < success_of(first).low, f"with a frozen past it succeeds in {text_of(frozen)}"
    )
