"""`failsight run NAME`: complete experiments with summary, pictures and report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from failsight.core.errors import FailsightError, UnknownNameError
from failsight.episodes.meta import write_text_atomic
from failsight.predictors.fit_recurrent import RecurrentOptions
from failsight.recipes.bench.options import BenchOptions
from failsight.recipes.bench.real import run_bench_real
from failsight.recipes.bench.tabletop import run_bench_tabletop
from failsight.recipes.interventions.episode_rows import write_episodes
from failsight.recipes.interventions.experiment import run_experiment
from failsight.recipes.interventions.flags import ExperimentChoice
from failsight.recipes.interventions.options import ExperimentConfig, configured
from failsight.recipes.interventions.pictures import picture_experiment
from failsight.recipes.interventions.summary import score_test_run, summarise_experiment
from failsight.recipes.studies.failure_head import run_failure_head
from failsight.recipes.studies.lattice_ablation import run_lattice_ablation
from failsight.recipes.studies.mobile_vla import run_mobile_vla
from failsight.reports.html import write_report
from failsight.storage.lock import writing_alone
from failsight.workflows.fit_ensemble import FitOptions
from failsight.workflows.progress import Reporter


def demo() -> ExperimentConfig:
    """First contact: the whole idea in a few minutes."""
    return ExperimentConfig(name="demo", seed=100, fit_trials=25, gate_trials=9, test_trials=14)


def tabletop_paper() -> ExperimentConfig:
    """The larger run: 1,200 episodes to fit and calibrate on, 480 pairs to test."""
    fit = FitOptions(recurrent=RecurrentOptions(epochs=30))
    return ExperimentConfig(name="tabletop-paper", seed=2000, fit_trials=100, gate_trials=24, test_trials=40, fit=fit)


def smoke() -> ExperimentConfig:
    """As small as it gets with every stage real; for tests."""
    fit = FitOptions(alpha=0.3, recurrent=RecurrentOptions(members=2, epochs=3))
    return ExperimentConfig(name="smoke", seed=7, fit_trials=4, gate_trials=1, test_trials=2, fit=fit)


def interventions() -> ExperimentConfig:
    """The demo's sizes, for any simulator and policy."""
    return replace(demo(), name="interventions")


RECIPES: dict[str, Callable[[], ExperimentConfig]] = {
    "demo": demo,
    "tabletop-paper": tabletop_paper,
    "smoke": smoke,
    "interventions": interventions,
}
"""Configurations of the one experiment on interventions."""


BENCHES = ("bench-real", "bench-tabletop")
"""Comparisons of detectors; they take no configuration."""

STUDIES: dict[str, Callable[[Path, int, Reporter], Path]] = {
    "mobile-vla": run_mobile_vla,
    "lattice-ablation": run_lattice_ablation,
    "failure-head": run_failure_head,
}
"""Trainings and what came of them."""


def find_recipe(name: str) -> ExperimentConfig | None:
    """The configuration of that name, None for a bench. Raises UnknownNameError with the nearest names."""
    if name in BENCHES or name in STUDIES:
        return None
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, (*RECIPES, *BENCHES, *STUDIES))
    return RECIPES[name]()


def run_recipe(
    name: str,
    folder: Path,
    workers: int,
    reporter: Reporter,
    data: Path | None = None,
    options: BenchOptions | None = None,
    choice: ExperimentChoice | None = None,
) -> Path:
    """Run a recipe, or finish an interrupted one; returns the report's path.

    Raises FailsightError when `data` or `options`, which are for bench-real, or `choice`, which is for experiments on
    interventions, come with another name; StorageError when another process is running it in this folder.
    """
    choice = choice or ExperimentChoice()
    if choice.given() and name not in RECIPES:
        flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in choice.given())
        raise FailsightError(f"{flags} would change nothing in {name}; they are for {', '.join(RECIPES)}.")
    with writing_alone(folder):
        return _run_recipe(name, folder, workers, reporter, data, options, choice)


def _run_recipe(
    name: str,
    folder: Path,
    workers: int,
    reporter: Reporter,
    data: Path | None,
    options: BenchOptions | None,
    choice: ExperimentChoice,
) -> Path:
    if name == "bench-real":
        return run_bench_real(folder, workers, reporter, data, options)
    if data is not None or options not in (None, BenchOptions()):
        raise FailsightError(f"--data, --detectors, --protocols and --splits are for bench-real; {name} has none.")
    if name == "bench-tabletop":
        return run_bench_tabletop(folder, workers, reporter)
    if name in STUDIES:
        return STUDIES[name](folder, workers, reporter)
    return _run_experiment(name, folder, workers, reporter, choice)


def _run_experiment(name: str, folder: Path, workers: int, reporter: Reporter, choice: ExperimentChoice) -> Path:
    began, resumed = time.monotonic(), any((folder / part).exists() for part in ("fit", "gate.jsonl"))
    found = find_recipe(name)
    assert found is not None
    result = run_experiment(configured(replace(found, workers=workers), choice), folder, reporter)
    reporter.stage("figures and report")
    no_films = picture_experiment(result, folder / "pictures")
    command = f"failsight run {name} --workers {workers}{choice.as_arguments()}"
    sequences, scored = score_test_run(result)
    write_episodes(result, scored, folder)
    summary = summarise_experiment(result, sequences, scored, command, time.monotonic() - began)
    if no_films:
        reporter.note(f"left out: films, because {no_films}")
        summary["left_out"]["films"] = no_films
    summary["resumed"] = resumed
    write_text_atomic(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False))
    return write_report(folder)
