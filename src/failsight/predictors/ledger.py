"""The evidence ledger: a handful of terms that add up, each of which can be shown to a person. NumPy, no torch.

    evidence = mean over members of (member - mean) / spread

On a task it has not seen, no task offset can be removed; weights, mean and spread are then those of a second fit, on
training episodes with their task's offset left in.

- **signals**: L2 logistic model on running evidence of every signal, trained to tell failures from successes of the
  same task;
- **hidden**: the same on the hidden state, whitened to a few principal components;
- **running mean**: the running mean of the log chunk error, not learned at all.

The task's failure rate and being overdue are no evidence: the calibration adds them to the displayed probability
(`monitor.probability`), never to the alarm. Default of a comparison of about 520 configurations on two VLA data sets;
`design/0003` says what was compared.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from failsight.core.errors import BundleError
from failsight.core.types import Array, Risk
from failsight.predictors.evidence import RunningEvidence, clipped
from failsight.predictors.missing import filled
from failsight.predictors.stepscale import StepScale
from failsight.predictors.transforms import log_positive

MEMBERS = ("signals", "hidden", "running_mean")


class LedgerPredictor:
    """Streaming ledger; tens of microseconds per step."""

    name = "ledger"

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: what `fit_ledger` stores; groups `signal.*`, `hidden.*`, `mean.*` for the fitted members, and
        weights, mean and spread of each: `member.*` on known tasks, `unknown.*` where no offset can be removed.
        """
        self.arrays = dict(arrays)
        try:
            self._shrink = float(arrays["shrink"])
            self._log = arrays["signal.log"].astype(bool)
            self._scale = StepScale(arrays["signal.mean"], arrays["signal.scale"])
            self.hidden_size = len(arrays["hidden.usual"]) if "hidden.basis" in arrays else 0
        except KeyError as error:
            raise BundleError(f"The model file has no array {error}; it is not an evidence ledger.") from error
        self.members = tuple(name for name in MEMBERS if f"member.{name}" in arrays)
        self._columns = arrays["signal.columns"]
        self._chunk = int(arrays["mean.column"]) if "mean.column" in arrays else None
        self.reset("")

    def reset(self, task: str) -> None:
        """Start an episode of `task`; an unknown task has no offset."""
        self._step, self._total = 0, 0.0
        known = any(f"{part}.offset.{task}" in self.arrays for part in ("signal", "hidden"))
        self._group = "member" if known else "unknown"
        self._signals = RunningEvidence((len(self._columns),), self._shrink, energy=True)
        self._offset = self.arrays.get(f"signal.offset.{task}")
        if self.hidden_size:
            self._hidden = RunningEvidence((len(self.arrays["hidden.basis"]),), self._shrink, energy=False)
            self._hidden_offset = self.arrays.get(f"hidden.offset.{task}")
        self.statistics: dict[str, Array] = {}
        """The statistics behind the last step's members, for explanation."""

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Evidence after one more step: signals (S,), hidden (D,) or None when the ledger has no such member."""
        terms = self.terms(signals, hidden)
        return Risk(p_fail=float("nan"), evidence=float(sum(terms.values())))

    def terms(self, signals: Array, hidden: Array | None) -> dict[str, float]:
        """One more step, `signals` (S,) and `hidden` (D,) or None, as the terms that add up to the evidence."""
        raw = log_positive(signals, self._log)
        values = {}
        if "signals" in self.members:
            values["signals"] = self._signal_member(raw)
        if "hidden" in self.members:
            values["hidden"] = self._hidden_member(hidden)
        if self._chunk is not None:
            error = raw[self._chunk]
            self._total += float(error) if np.isfinite(error) else float(self.arrays["mean.usual"])
            values["running_mean"] = self._total / (self._step + 1)
        self._step += 1
        return {name: self._standard(name, value) / len(values) for name, value in values.items()}

    def _signal_member(self, raw: Array) -> float:
        z = self._scale.apply(raw[self._columns], self._step)
        if self._offset is not None:
            z = z - self._offset[min(self._step, len(self._offset) - 1)]
        statistics = self._signals.update(clipped(z))
        self.statistics["signals"] = statistics
        return float(statistics @ self.arrays[f"{self._group}.signal_weights"])

    def _hidden_member(self, hidden: Array | None) -> float:
        if hidden is None or len(hidden) != self.hidden_size:
            found = "none" if hidden is None else str(len(hidden))
            raise BundleError(f"This ledger needs a hidden state of size {self.hidden_size}; it got {found}.")
        arrays = self.arrays
        centre = arrays["hidden.mean"]
        y = arrays["hidden.basis"] @ filled(hidden, arrays["hidden.usual"]) - centre[min(self._step, len(centre) - 1)]
        if self._hidden_offset is not None:
            y = y - self._hidden_offset
        statistics = self._hidden.update(clipped(y))
        self.statistics["hidden"] = statistics
        return float(statistics @ arrays[f"{self._group}.hidden_weights"])

    def _standard(self, name: str, value: float) -> float:
        mean, spread = self.arrays[f"{self._group}.{name}"]
        return float((value - mean) / spread)

    def signal_terms(self) -> Array:
        """(4 S,) parts of the signal member after the last step; with the member's mean they add up to its term."""
        weights, spread = self.arrays[f"{self._group}.signal_weights"], self.arrays[f"{self._group}.signals"][1]
        return np.asarray(self.statistics["signals"] * weights / spread / len(self.members))

    def save_state(self) -> dict[str, Array]:
        """`scalars` (2,), `signals` (5, S) and, with a hidden member, `hidden` (5, C); `reset` knows the task."""
        state = {"scalars": np.array([self._step, self._total]), "signals": self._signals.save_state()}
        if self.hidden_size:
            state["hidden"] = self._hidden.save_state()
        return state

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it, after `reset` with the task of the episode."""
        self._step, self._total = int(state["scalars"][0]), float(state["scalars"][1])
        self._signals.load_state(state["signals"])
        if self.hidden_size:
            self._hidden.load_state(state["hidden"])
