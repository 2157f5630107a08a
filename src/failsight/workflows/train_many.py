"""Several trainings side by side, one compute thread each, with one progress bar over all their steps."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from failsight.runtime.pool import run_pool
from failsight.training.config import TrainConfig
from failsight.training.loop import Fitted
from failsight.workflows.progress import Reporter
from failsight.workflows.train import train

_EVERY = 50
"""Steps per tick of the bar."""


class Job(NamedTuple):
    """One training."""

    name: str
    data: Path
    config: TrainConfig
    folder: Path


def train_many(jobs: Sequence[Job], workers: int, reporter: Reporter) -> dict[str, Fitted]:
    """Train (or finish) every job; name -> what it left behind."""
    total = sum(job.config.fit.steps // _EVERY for job in jobs)
    tick, done, stop = reporter.count(total), [0], threading.Event()

    def catch_up() -> None:
        now = sum(min(_steps(job.folder), job.config.fit.steps) // _EVERY for job in jobs)
        while done[0] < min(now, total):
            done[0] += 1
            tick("steps of 50")

    def watch() -> None:
        while not stop.wait(1.0):
            catch_up()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        found = {job.name: fitted for job, fitted in run_pool(partial(_nothing), _train, list(jobs), workers)}
    finally:
        stop.set()
        watcher.join()
    catch_up()
    return found


def _nothing() -> None:
    return None


def _train(_: Any, job: Job) -> Fitted:
    fit = replace(job.config.fit, threads=1)
    return train(job.data, replace(job.config, fit=fit), job.folder)


def _steps(folder: Path) -> int:
    """Last step a training has logged."""
    path = folder / "losses.jsonl"
    if not path.is_file():
        return 0
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 600))
        lines = [line for line in file.read().splitlines() if line.endswith(b"}") and line.startswith(b"{")]
    return int(json.loads(lines[-1])["step"]) if lines else 0
