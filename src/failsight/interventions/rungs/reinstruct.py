"""Saying the same in other words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from failsight.core.contracts import Context
from failsight.core.foreign import read_text
from failsight.core.types import CONTINUE, Decision, DecisionKind, Verdict

Wordings = Mapping[str, Sequence[str]] | Callable[[str], Sequence[str]]
"""Other words for an instruction, best first: a table, or whoever is asked."""


class Reinstruct:
    """Each time the trigger goes on, the next of the other wordings of the episode's instruction; then none."""

    def __init__(self, wordings: Wordings) -> None:
        """Raises EpisodeDataError for a wording that is empty or no text."""
        self._wordings = wordings if callable(wordings) else _read(wordings)
        self.reset()

    def reset(self) -> None:
        """Nothing said yet."""
        self._on, self._said, self._first = False, 0, ""

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Say it when the trigger goes on; where no other wording is known, the reason says so."""
        self._first = self._first or context.instruction
        begins, self._on = verdict.trigger and not self._on, verdict.trigger
        if not begins:
            return CONTINUE
        known = self._others()
        if self._said >= len(known):
            return Decision(kind=DecisionKind.CONTINUE, reason=f"no other wording of {self._first!r} is known")
        self._said += 1
        words = known[self._said - 1]
        return Decision(kind=DecisionKind.REINSTRUCT, reason=f"in other words: {verdict.why}", instruction=words)

    def _others(self) -> Sequence[str]:
        if not callable(self._wordings):
            return self._wordings.get(self._first, ())
        said = self._wordings(self._first)
        return _texts(said, f"wordings of {self._first!r}")


def _read(table: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    return {read_text(text, "wordings"): _texts(others, f"wordings of {text!r}") for text, others in table.items()}


def _texts(others: Sequence[str], where: str) -> Sequence[str]:
    found = [others] if isinstance(others, str) else list(others)
    return [read_text(text, where) for text in found]
