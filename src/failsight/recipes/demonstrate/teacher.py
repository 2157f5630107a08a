"""Who shows a simulator's tasks to worker processes, and the units of that work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from failsight.core.contracts import Demonstrator, Shown, Sim
from failsight.core.errors import FailsightError, told
from failsight.core.types import EpisodeKey
from failsight.workflows.wiring import find_demonstrator, make_sim

_TRIES = 20


class DemonstrationTicket(NamedTuple):
    """One episode to make."""

    number: int
    key: EpisodeKey
    path: Path


class Teacher(NamedTuple):
    """A simulator and who demonstrates in it."""

    name: str
    sim: Sim
    demonstrator: Demonstrator

    def show(self, key: EpisodeKey) -> tuple[Shown, int]:
        """A demonstration that succeeded, and how many before it did not (another seed replaces them).

        Raises FailsightError when 20 in a row fail.
        """
        for attempt in range(_TRIES):
            with told(f"Demonstrating {key.task} in {self.name} failed"):
                shown = self.demonstrator.show(self.sim, replace(key, seed=key.seed + 7_000_003 * attempt))
            if shown is not None:
                return shown, attempt
        raise FailsightError(f"The expert failed {_TRIES} times in {key.task}; the task has no way through.")


def make_teacher(sim: str) -> Teacher:
    """Of one worker process. Raises FailsightError where nobody demonstrates."""
    demonstrator = find_demonstrator(sim)  # first: without one, no simulator needs to be installed
    return Teacher(sim, make_sim(sim), demonstrator)


def require_only(folder: Path, found: Iterable[Path], tickets: Iterable[DemonstrationTicket]) -> None:
    """Raises FailsightError when a folder holds files of another plan."""
    foreign = {path.name for path in found} - {ticket.path.name for ticket in tickets}
    if foreign:
        raise FailsightError(f"{folder} holds other recordings ({sorted(foreign)[0]}, ...); choose another folder.")
