"""Half precision: where it runs, and how many steps its gradient scaler may leave out."""

from __future__ import annotations

import torch

from failsight.core.errors import FailsightError

_LIMIT = 50
"""Steps left out in a row after which a smaller scale is not what is missing."""


def require_precision(precision: str) -> None:
    """Raises FailsightError for a precision this machine cannot train in."""
    if precision == "fp16" and not torch.cuda.is_available():
        raise FailsightError("--fit.precision fp16 needs a GPU; use bf16 or no.")


class Skips:
    """Counts steps that the gradient scaler left out because a gradient was beyond float16."""

    def __init__(self) -> None:
        self.total, self._in_a_row = 0, 0

    def count(self, skipped: bool, step: int) -> None:
        """Note a step. Raises FailsightError when too many were left out in a row."""
        self.total += skipped
        self._in_a_row = self._in_a_row + 1 if skipped else 0
        if self._in_a_row >= _LIMIT:
            raise FailsightError(
                f"The last {_LIMIT} steps up to step {step} were left out: gradients are beyond float16 at every scale. "
                "Use --fit.precision bf16, or lower --fit.learning-rate."
            )
