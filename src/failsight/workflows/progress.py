"""Where progress of long work goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Reporter(Protocol):
    """Where progress goes."""

    def stage(self, title: str) -> None:
        """A new stage begins."""

    def count(self, total: int) -> Callable[[str], None]:
        """A counter to call once per unit with a short note."""

    def note(self, text: str) -> None:
        """Something worth saying."""


def ticking(tick: Callable[[str], None], note: str) -> Callable[[int], None]:
    """A progress function for work that reports how many units are done, one more at a time."""

    def progress(done: int) -> None:
        tick(note)

    return progress
