"""What a detector is: one row of every comparison, and what its fit may see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal, NamedTuple

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.specs import Access, SignalColumn
from failsight.predictors.dataset import LabelledSequence


class FitData(NamedTuple):
    """What a fit may see."""

    train: Sequence[LabelledSequence]
    columns: tuple[SignalColumn, ...]
    seed: int
    held: Sequence[LabelledSequence] = ()
    """Labelled episodes that nothing is fitted on, to standardise with; empty: the fit keeps some of `train` apart."""

    @property
    def names(self) -> list[str]:
        """Names of the signals."""
        return [column.name for column in self.columns]

    def has_values(self, name: str) -> bool:
        """Whether that signal was recorded and is not missing throughout."""
        if name not in self.names:
            return False
        at = self.names.index(name)
        return any(np.isfinite(s.signals[:, at]).any() for s in self.train)

    @property
    def has_hidden(self) -> bool:
        """Whether hidden states were recorded."""
        return self.train[0].hidden is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """One row of every comparison."""

    title: str
    source: str
    access: Access
    """The least access it works with."""
    fit: Callable[[FitData], Predictor]
    supervised: bool = True
    """Whether it learns to tell failures from successes; such a detector is also run on permuted labels. (Novelty is
    not: labels only choose what it is shown, and permuting them would not silence it.)
    """
    learned_part: Callable[[FitData], Predictor] | None = None
    """What of it is learned from labels, for that control; None: all of it."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Of a blend: member -> the detector that fits it alone; its traces follow from theirs."""
    columns: tuple[str, ...] = ()
    """Signals of which at least one must be there; empty: any."""
    every_column: tuple[str, ...] = ()
    """Signals that must all be there."""
    types: bool = False
    """Whether it learns from failure types."""
    instead: str = ""
    """What to choose where it cannot be fitted."""
    torch: bool = False
    """Whether its fit needs torch (no step ever does)."""
    by: Literal["task", "condition"] = "task"
    """What it is told an episode belongs to; the condition only for the control that knows nothing else."""
    adds_prior: bool = True
    """Whether the task's failure rate is added to its displayed probability (never for the controls)."""

    def lacks(self, data: FitData) -> str:
        """What a log lacks to run it; empty when nothing."""
        if self.torch and find_spec("torch") is None:
            return "torch (pip install 'failsight[train]')"
        if self.access == Access.HIDDEN and not data.has_hidden:
            return "hidden states"
        if self.by == "condition" and len({s.condition for s in data.train}) < 2:
            return "known perturbations"
        if self.columns and not any(data.has_values(name) for name in self.columns):
            return " or ".join(self.columns)
        missing = [name for name in self.every_column if not data.has_values(name)]
        if missing:
            return " and ".join(missing)
        if self.types and all(s.kind < 0 for s in data.train):
            return "failure types"
        return ""
