"""Five errored episodes in a row end a run: the sixth would break as well, and nobody would look."""

from __future__ import annotations

from failsight.core.errors import FailsightError
from failsight.core.types import Outcome

MOST = 5
SIMULATOR_RESET = "simulator reset"
"""Who releases the latch between episodes in simulation."""


class ErrorStreak:
    """Counts errored episodes in a row, in the order in which they finish."""

    def __init__(self) -> None:
        self._count = 0

    def saw(self, outcome: Outcome | None, error: str) -> None:
        """Take in one episode. Raises FailsightError at the fifth errored one in a row, with the last reason."""
        self._count = self._count + 1 if outcome == Outcome.ERRORED else 0
        if self._count >= MOST:
            raise FailsightError(
                f"{MOST} episodes in a row errored and the run was ended; the last one: {error or 'no reason given'}. "
                "Mend that, then start again in a new folder."
            )
