"""Where training figures go beside `losses.jsonl`: TensorBoard, Weights & Biases, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from failsight.core.errors import FailsightError, UnknownNameError


class Tracker(Protocol):
    """Takes figures."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a step."""

    def close(self) -> None:
        """Nothing more comes."""


class Silent:
    """No tracker."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Drop them."""

    def close(self) -> None:
        """Nothing to do."""


class TensorBoard:
    """Event files in `folder/tensorboard`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar per figure."""
        for name, value in values.items():
            self._writer.add_scalar(name.replace("valid_", "valid/"), value, step)

    def close(self) -> None:
        """Flush."""
        self._writer.close()


class WandB:
    """A run of project `failsight`."""

    def __init__(self, folder: Path) -> None:
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise FailsightError("The tracker wandb is not installed. Try: pip install 'failsight[wandb]'") from error
        self._run: Any = wandb.init(project="failsight", name=folder.name, dir=str(folder), resume="allow")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One row."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def make_tracker(name: str, folder: Path) -> Tracker:
    """Raises UnknownNameError, or FailsightError when the package is missing."""
    makers: dict[str, Callable[[Path], Tracker]] = {
        "none": lambda _: Silent(),
        "tensorboard": TensorBoard,
        "wandb": WandB,
    }
    if name not in makers:
        raise UnknownNameError("tracker", name, makers)
    return makers[name](folder)
