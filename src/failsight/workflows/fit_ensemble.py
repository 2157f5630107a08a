"""What a fit of our own runs learns: the recurrent ensemble, and the controls beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from failsight.core.types import Array
from failsight.episodes.run import Run
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.baselines import ClockPredictor, TaskPriorPredictor
from failsight.predictors.dataset import FitSplit, permute_labels, signal_columns
from failsight.predictors.features import log_mask
from failsight.predictors.fit_mlp import fit_mlp
from failsight.predictors.fit_recurrent import RecurrentOptions, fit_recurrent, merge_members
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.runtime.pool import run_pool
from failsight.signals.bank import SIGNAL_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """Dials of a fit."""

    alpha: float = 0.10
    """Episode false-alarm rate to promise."""
    seed: int = 0
    rule: TriggerRule = field(default_factory=TriggerRule)
    """In ticks at 20 Hz; a run at another rate gets a rule that lasts as long."""
    recurrent: RecurrentOptions = field(default_factory=RecurrentOptions)
    controls: bool = True


def note_signals(run: Run, note: Callable[[str], None]) -> Array:
    """(S,) bool: signals of the run whose logarithm is taken; says which ones its robot lacks something for."""
    names = [column.name for column in signal_columns(run)]
    absent = [] if run.meta.signals else [name for name in SIGNAL_NAMES if name not in names]
    if absent:
        note(f"signals this robot lacks something for are left out: {', '.join(absent)}")
    return log_mask(names)


def fit_baselines(split: FitSplit, options: FitOptions) -> dict[str, Any]:
    """The SALUS-style network (where failure types are known), the clock and the task's failure rate."""
    failed = [s.failed for s in split.train]
    typed = any(s.kind >= 0 for s in split.train)
    return {
        **({"salus_mlp": fit_mlp(split.train, split.validate, options.seed)} if typed else {}),
        "clock": ClockPredictor.fit([len(s.signals) for s in split.train], failed),
        "task_prior": TaskPriorPredictor.fit([s.task for s in split.train], failed),
    }


class _Member(NamedTuple):
    """One member to fit: of the real ensemble, or of the permuted-label control."""

    number: int
    permuted: bool


def fit_ensembles(
    split: FitSplit, options: FitOptions, log_dir: Path, workers: int, log: Array | None = None
) -> tuple[Any, list[Any]]:
    """The default predictor and the permuted-label control, members shared out among processes.

    `log` (S,) bool marks the signals to take the logarithm of, by default those of a whole bank. The control is as
    many single members as the ensemble has, each on another permutation: one permuted fit ranks episodes by a random
    function of the same features, so a single one can land well off 0.5; several show where the control is centred
    and how far it strays.
    """
    tickets = [
        _Member(i, permuted)
        for permuted in (False, True)[: 1 + options.controls]
        for i in range(options.recurrent.members)
    ]
    data = partial(_identity, (split.train, split.validate))
    fitted = dict(run_pool(data, partial(_fit_member, options, log_dir, log), tickets, workers))
    real = [fitted[t] for t in tickets if not t.permuted]
    return merge_members(real), [fitted[t] for t in tickets if t.permuted]


def _identity(value: Any) -> Any:
    return value


def _fit_member(
    options: FitOptions, log_dir: Path, log: Array | None, data: tuple[Any, Any], ticket: _Member
) -> RecurrentPredictor:
    train, validate = data
    if not ticket.permuted:
        folder = log_dir / f"member{ticket.number}"
        return fit_recurrent(train, validate, options.recurrent, folder, indices=(ticket.number,), log=log)
    seed = options.seed + 1000 * (ticket.number + 1)
    single = replace(options.recurrent, members=1, seed=seed)
    return fit_recurrent(permute_labels(train, seed), permute_labels(validate, seed + 1), single, log=log)
