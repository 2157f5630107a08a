"""Where progress of long work goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from failsight.core.types import Outcome
from failsight.episodes.meta import EpisodeMeta


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


def succeeding(tick: Callable[[str], None]) -> Callable[[EpisodeMeta, bool], None]:
    """A progress function for collected episodes that notes the share of successes so far."""
    good = done = 0

    def progress(meta: EpisodeMeta, old: bool) -> None:
        nonlocal good, done
        done, good = done + 1, good + (meta.outcome == Outcome.SUCCESS)
        tick(f"success {good / done:.0%}")

    return progress
