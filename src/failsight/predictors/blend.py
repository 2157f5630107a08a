"""The default on logs: the mean of standardised evidences, each of which can be shown to a person. NumPy, no torch.

    evidence = sum over members of (evidence_i - mean_i) / spread_i / sqrt(members)

- **running_mean**: the running mean of the log chunk error, not learned;
- **ledger**: the evidence ledger;
- **hazard**: the log-odds of the recurrent hazard ensemble's p_fail; left out where it could not be fitted (no torch).

Mean and spread are those of all steps of successful episodes that no member was fitted on: one pair per member, not per
step. A member whose input a log lacks is left out. `design/0005` says what was compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.errors import BundleError
from failsight.core.types import Array, Risk
from failsight.predictors.ledger import LedgerPredictor
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.predictors.scalars import ScalarPredictor

KINDS: Mapping[str, Callable[[Mapping[str, Array]], Predictor]] = {
    "running_mean": ScalarPredictor,
    "ledger": LedgerPredictor,
    "hazard": RecurrentPredictor,
}
"""Members in the order in which they are added up."""
_LEAST = 1e-6
"""p_fail is kept this far from 0 and 1 before its log-odds are taken."""


def log_odds(p_fail: float) -> float:
    """Log-odds of a probability that is kept away from 0 and 1.

    >>> round(log_odds(0.75), 4), round(log_odds(0.0), 2)
    (1.0986, -13.82)
    """
    p = min(max(p_fail, _LEAST), 1 - _LEAST)
    return math.log(p / (1 - p))


class BlendPredictor:
    """Streaming blend: every member is stepped, and the terms of the last step are kept."""

    name = "blend"

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: those of every member under `<member>/...`, and `scale.<member>` (2,): mean and spread."""
        self.arrays = dict(arrays)
        self.members: dict[str, Predictor] = {}
        self._scales: dict[str, tuple[float, float]] = {}
        for member, kind in KINDS.items():
            if f"scale.{member}" not in arrays:
                continue
            mean, spread = (float(value) for value in arrays[f"scale.{member}"])
            self._scales[member] = (mean, spread)
            self.members[member] = kind(
                {name.split("/", 1)[1]: a for name, a in arrays.items() if name.startswith(f"{member}/")}
            )
        if not self.members:
            raise BundleError("The model file holds no member of a blend.")
        self.hidden_size = max(getattr(m, "hidden_size", 0) for m in self.members.values())
        self._root = math.sqrt(len(self.members))
        self.reset("")

    @property
    def ledger(self) -> LedgerPredictor | None:
        """The member whose own terms can be shown, when there is one."""
        found = self.members.get("ledger")
        return found if isinstance(found, LedgerPredictor) else None

    @property
    def ledger_share(self) -> float:
        """By how much the evidence grows when the ledger's grows by 1."""
        return 1 / self._scales["ledger"][1] / self._root

    def reset(self, task: str) -> None:
        """Start an episode of `task`."""
        for member in self.members.values():
            member.reset(task)
        self.shown: dict[str, float] = {}
        """The terms behind the last step's evidence."""

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Evidence after one more step: signals (S,), hidden (D,) or None when no member reads it."""
        return Risk(p_fail=float("nan"), evidence=sum(self.terms(signals, hidden).values()))

    def terms(self, signals: Array, hidden: Array | None) -> dict[str, float]:
        """One more step, `signals` (S,) and `hidden` (D,) or None, as the terms that add up to the evidence."""
        raw = {name: evidence_of(name, member.update(signals, hidden)) for name, member in self.members.items()}
        self.shown = {n: (value - self._scales[n][0]) / self._scales[n][1] / self._root for n, value in raw.items()}
        return self.shown

    def save_state(self) -> dict[str, Array]:
        """Memory of every member."""
        return {f"{name}/{k}": v for name, m in self.members.items() for k, v in m.save_state().items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it, after `reset` with the task of the episode."""
        for name, member in self.members.items():
            member.load_state({k.split("/", 1)[1]: v for k, v in state.items() if k.startswith(f"{name}/")})


def evidence_of(member: str, risk: Risk) -> float:
    """A member's evidence: the log-odds of p_fail for the hazard ensemble, else what it would be judged by."""
    return log_odds(risk.p_fail) if member == "hazard" else risk.judged


def scale_of(evidence: Array) -> Array:
    """(2,) mean and spread of a member's evidence over steps (N,); what could not be told is left out."""
    kept = evidence[np.isfinite(evidence)]
    if not len(kept):
        return np.array([0.0, 1.0])
    return np.array([kept.mean(), max(float(kept.std()), 1e-9)])
