"""Why an alarm was raised: its terms, the signals behind them, the nearest training episodes, the last safe step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from failsight.core.types import Array
from failsight.monitor.probability import ProbabilityMap
from failsight.predictors.blend import BlendPredictor
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.ledger import LedgerPredictor

KINDS = ("sustained", "slow", "recent", "spread")
"""Statistics of a signal in the order the ledger keeps them: shrunken mean, slow and fast average, energy."""


class Neighbour(NamedTuple):
    """A training episode that looked alike."""

    ticket: int
    task: str
    failed: bool
    distance: float


class Explanation(NamedTuple):
    """One alarm."""

    step: int
    last_safe: int | None
    """Last step before the alarm at which the evidence was no worse than usual (0 or below); None: never."""
    terms: dict[str, float]
    """Log-odds: prior, overdue, and each member of the evidence; they add up to the displayed logit."""
    signals: list[tuple[str, str, float]]
    """(signal, kind, contribution) of the signal member, largest first."""
    nearest: list[Neighbour]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "step": self.step,
            "last_safe": self.last_safe,
            "terms": self.terms,
            "signals": [list(row) for row in self.signals],
            "nearest": [row._asdict() for row in self.nearest],
        }

    def sentence(self) -> str:
        """One line for a person."""
        top = (
            ", ".join(f"{name} ({kind}, {value:+.2f})" for name, kind, value in self.signals[:3]) or "no single signal"
        )
        terms = ", ".join(f"{name} {value:+.2f}" for name, value in self.terms.items())
        safe = "no step before it looked safe" if self.last_safe is None else f"last safe step {self.last_safe}"
        return f"step {self.step}: {terms}; most of it from {top}; {safe}"


Explained = LedgerPredictor | BlendPredictor
"""Predictors whose evidence is a sum of terms that can be shown."""


def ledger_of(predictor: Explained) -> LedgerPredictor | None:
    """The ledger itself, or the one inside a blend."""
    return predictor.ledger if isinstance(predictor, BlendPredictor) else predictor


def explain(
    predictor: Explained,
    probability: ProbabilityMap,
    names: Sequence[str],
    sequence: LabelledSequence,
    step: int,
    reference: Reference | None = None,
) -> Explanation:
    """Explain the evidence at `step` of an episode, as of that step: nothing later is looked at.

    Signals and neighbours are those of the ledger, alone or as a member of the blend.
    """
    predictor.reset(sequence.task)
    evidence, parts = np.empty(step + 1), dict[str, float]()
    for t in range(step + 1):
        parts = predictor.terms(sequence.signals[t], None if sequence.hidden is None else sequence.hidden[t])
        evidence[t] = sum(parts.values())
    scale = probability.slope / probability.spread
    terms = {name: scale * value for name, value in parts.items()}
    whole = probability.terms(float(evidence[-1]), sequence.task, step)
    if whole is not None:
        terms |= {"prior": whole.prior, "overdue": whole.overdue}
        terms["constant"] = whole.intercept - scale * probability.centre
    safe = np.flatnonzero(evidence[:-1] <= probability.centre)
    return Explanation(
        step=step,
        last_safe=int(safe[-1]) if len(safe) else None,
        terms={name: float(value) for name, value in terms.items()},
        signals=_signals(predictor, names, scale),
        nearest=[] if reference is None else reference.nearest(sequence, step),
    )


def _signals(predictor: Explained, names: Sequence[str], scale: float) -> list[tuple[str, str, float]]:
    ledger = ledger_of(predictor)
    if ledger is None or "signals" not in ledger.statistics:
        return []
    share = predictor.ledger_share if isinstance(predictor, BlendPredictor) else 1.0
    parts = ledger.signal_terms() * scale * share
    columns = ledger.arrays["signal.columns"]
    rows = [
        (str(names[int(columns[i % len(columns)])]), KINDS[i // len(columns)], float(value))
        for i, value in enumerate(parts)
    ]
    return sorted(rows, key=lambda row: -abs(row[2]))[:6]


class Reference:
    """Training episodes as the ledger saw them at a few steps, to look for the nearest."""

    def __init__(self, predictor: Explained, train: Sequence[LabelledSequence], every: int = 4) -> None:
        self._every, self._ledger = every, ledger_of(predictor)
        self._train = train if self._ledger is not None else ()
        self._states = [_states(self._ledger, s, every) for s in self._train if self._ledger is not None]

    def nearest(self, sequence: LabelledSequence, step: int, count: int = 3) -> list[Neighbour]:
        """The training episodes whose statistics were closest at the same time (rounded down to a kept step)."""
        if self._ledger is None:
            return []
        at = step // self._every
        mine = _states(self._ledger, sequence, self._every, upto=at)[-1]
        rows = []
        for s, states in zip(self._train, self._states, strict=True):
            if len(states) > at and s.ticket != sequence.ticket:
                rows.append(Neighbour(s.ticket, s.task, s.failed, float(np.linalg.norm(states[at] - mine))))
        return sorted(rows, key=lambda row: row.distance)[:count]


def _states(ledger: LedgerPredictor, s: LabelledSequence, every: int, upto: int | None = None) -> list[Array]:
    ledger.reset(s.task)
    kept = []
    last = len(s.signals) if upto is None else min(len(s.signals), upto * every + 1)
    for t in range(last):
        ledger.terms(s.signals[t], None if s.hidden is None else s.hidden[t])
        if t % every == 0:
            kept.append(np.concatenate(list(ledger.statistics.values())))
    return kept
