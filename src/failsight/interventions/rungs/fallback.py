"""Handing over to another policy."""

from __future__ import annotations

from failsight.core.types import DecisionKind
from failsight.interventions.rungs.takeover import Takeover


class Fallback(Takeover):
    """Another policy acts from the trigger on. A sibling of the first one shares its blind spots (see LOG.md)."""

    needs_fallback = True
    kind = DecisionKind.FALLBACK
    words = "another policy"
