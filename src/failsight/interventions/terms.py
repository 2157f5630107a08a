"""On what terms a rung stands on a ladder: how long it may act, how long it takes, what it costs, whom it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RungTerms:
    """RungTerms of one rung."""

    limit_s: float | None = None
    """The longest it may act while the trigger stays on, before the next dearer one; None: the ladder's patience."""
    takes_s: float = 0.0
    """How long it needs to help: too long for a failure that comes sooner and cannot be undone."""
    cost: float = 1.0
    """What one use costs; cheaper rungs come first, and equal ones in the order of the ladder."""
    autonomous: bool = True
    """Whether it needs no person."""


IRREVERSIBLE = ("collision", "drop")
"""Failure types that nothing undoes once they have happened."""
TERMS: Mapping[str, RungTerms] = {
    "slow": RungTerms(limit_s=5.0, takes_s=0.3),
    "limit": RungTerms(limit_s=5.0, takes_s=0.2),
    "conservative": RungTerms(limit_s=5.0, takes_s=0.2),
    "replan": RungTerms(limit_s=1.5, takes_s=0.1),
    "resample": RungTerms(limit_s=1.5, takes_s=0.1),
    "backtrack": RungTerms(limit_s=2.5, takes_s=0.1, cost=2.0),
    "regain_view": RungTerms(limit_s=3.5, takes_s=0.5, cost=2.0),
    "retry": RungTerms(limit_s=4.0, takes_s=0.5, cost=2.0),
    "fallback": RungTerms(limit_s=5.0, takes_s=0.5, cost=5.0),
    "takeover": RungTerms(cost=10.0, autonomous=False),
    "safe_stop": RungTerms(cost=20.0),
}
"""RungTerms of our rungs by arm; others have the plain ones."""
