"""Choosing a checkpoint: what there must be to choose by, and one answer for all processes of a training."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

from failsight.core.errors import FailsightError

_PATIENCE = datetime.timedelta(days=7)
"""How long the other processes wait while the first one drives; the default of half an hour ends trainings."""


def require_choice(best_by: str, validation_windows: int, simulator: bool) -> None:
    """Refuse, before the first step, a choice that could never be made. Raises FailsightError."""
    if best_by == "validation" and validation_windows == 0:
        raise FailsightError(
            "Choosing the best checkpoint needs validation episodes and the split leaves none; raise --validation-share, "
            "add episodes, or keep the last checkpoint with --fit.best-by last."
        )
    if best_by == "success" and not simulator:
        raise FailsightError(
            "Choosing by success needs a simulator; name one with --sim (processes started by accelerate or "
            "torchrun have none), or use --fit.best-by validation."
        )


class Judge:
    """Drives a checkpoint in the first process and tells all others; what goes wrong there goes wrong everywhere."""

    def __init__(self, success: Callable[[Path], float] | None, main: bool) -> None:
        """`success`: checkpoint folder -> success rate. All processes must make their judge at the same point."""
        import torch.distributed as dist

        assert success is not None
        self._success, self._main = success, main
        shared = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self._group: Any = dist.new_group(backend="gloo", timeout=_PATIENCE) if shared else None

    def ask(self, checkpoint: Path) -> float:
        """The success rate. Raises FailsightError in every process when it cannot be had."""
        if self._group is None:
            return self._success(checkpoint)
        import torch.distributed as dist

        answer: list[Any] = [self._drive(checkpoint) if self._main else None]
        dist.broadcast_object_list(answer, src=0, group=self._group)
        if isinstance(answer[0], str):
            raise FailsightError(answer[0])
        return float(answer[0])

    def _drive(self, checkpoint: Path) -> float | str:
        try:
            return float(self._success(checkpoint))
        except Exception as error:
            return str(error) if isinstance(error, FailsightError) else f"Judging {checkpoint} failed: {error!r}."
