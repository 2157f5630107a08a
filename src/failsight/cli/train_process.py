"""`python -m failsight.cli.train_process`: one process of a distributed training, started by accelerate or torchrun.

The same flags as `failsight train-policy`, without the simulator: only the first process prints and writes, and the
precision is the one in the flags.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

from failsight.cli.console import console, say
from failsight.core.errors import FailsightError
from failsight.training.config import TrainConfig


def train(
    data: Path,
    out: Path,
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig(),  # noqa: B008 (frozen)
) -> None:
    """Train as one process of several.

    Args:
        data: any data `failsight train-policy` reads; all processes must see the same folder.
        out: folder of the training; all processes must see it.
        config: the cell and its dials; `fit.batch` is per process.
    """
    from failsight.workflows.train import train as run

    first = os.environ.get("RANK", "0") == "0"

    def progress(step: int, values: object) -> None:
        if first and isinstance(values, dict) and (step % 50 == 0 or "valid_total" in values):
            console.print(f"step {step}: " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def note(text: str) -> None:
        if first:
            console.print(text, soft_wrap=True, markup=False)

    fitted = run(data, config, out, progress=progress, note=note)
    if first:
        chosen = "" if config.fit.best_by == "last" else f", {config.fit.best_by} {fitted.best_value:.4g}"
        console.print(f"checkpoint {fitted.best} (step {fitted.best_step}{chosen})")


if __name__ == "__main__":
    try:
        tyro.cli(train)
    except FailsightError as error:
        say(("failsight:", "red"), f" {error}")
        sys.exit(2)
