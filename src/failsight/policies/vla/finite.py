"""Nothing that is not a number goes into a checkpoint, and no loss that is not one counts as the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from failsight.core.errors import FailsightError


def require_finite_weights(model: nn.Module, folder: Path) -> None:
    """Refuse to save trained weights that are not finite. Raises FailsightError naming the first one."""
    for name, value in model.named_parameters():
        if value.requires_grad and not bool(torch.isfinite(value).all()):
            raise FailsightError(
                f"{folder} was not written: weight {name} is not finite, the training has diverged. What was saved "
                "before is as it was; lower the learning rate and go on from there."
            )


def require_finite_statistics(statistics: Mapping[str, Any]) -> None:
    """Refuse statistics of actions or states that are not finite. Raises FailsightError naming entry and number."""
    for what in ("action", "state"):
        for name, values in statistics.get(what, {}).items():
            for i, value in enumerate(values):
                if not math.isfinite(value):
                    raise FailsightError(
                        f"The training data give {value} as {name} of {what} entry {i}; look at these episodes with: "
                        "failsight audit."
                    )


def better(score: float, best: float) -> bool:
    """Whether a score (higher is better) is a number and beats the best so far, which is NaN when there is none."""
    return math.isfinite(score) and not score <= best
