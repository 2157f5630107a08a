"""One fit for several policies: every run is standardised on itself, the weights of the signals are learned together.

The list is JSON: run folders, or objects with a `run` key. Feature sizes may differ: hidden states stay with their
policy, only the signals that all runs have are shared. One bundle per run comes out, because a bundle belongs to one
policy; the table says what weights learned on the other policies alone are worth (leave one policy out).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.specs import Access
from failsight.core.textfiles import read_json
from failsight.core.types import Array
from failsight.episodes.run import Run
from failsight.evaluation.bench_figures import bootstraps, rankings
from failsight.evaluation.intervals import Estimate
from failsight.evaluation.judging import DataSet, judge
from failsight.evaluation.protocols import PROTOCOLS, headline_cut, splits
from failsight.evaluation.ranking import auc_estimate
from failsight.predictors.detector import Detector
from failsight.predictors.fit_ledger import LedgerOptions, fit_ledger, shared_weights
from failsight.workflows.fit import LogFitOptions, fit_with, read_data


def read_listing(path: Path) -> list[Path]:
    """Run folders of a JSON list. Raises FailsightError when it is not one of at least two."""
    try:
        runs = [Path(entry["run"] if isinstance(entry, dict) else entry) for entry in read_json(path)]
    except (EpisodeDataError, KeyError, TypeError) as error:
        raise FailsightError(
            f'{path} is not a JSON list of run folders such as ["runs/a", "runs/b"] ({error}).'
        ) from error
    if len(runs) < 2:
        raise FailsightError(f"{path} lists {len(runs)} runs; fitting together needs at least two.")
    return runs


def common_signals(sets: Sequence[DataSet]) -> tuple[str, ...]:
    """Names every run has, in the order of the first. Raises EpisodeDataError when there is none."""
    names = [column.name for column in sets[0].columns]
    shared = tuple(n for n in names if all(n in [c.name for c in s.columns] for s in sets))
    if not shared:
        found = "; ".join(f"{s.name}: {', '.join(c.name for c in s.columns)}" for s in sets)
        raise EpisodeDataError(f"The runs have no signal in common ({found}); nothing can be learned together.")
    return shared


def fit_many(
    listing: Path, target: Path, alpha: float, seed: int, note: Callable[[str], None]
) -> list[tuple[str, ...]]:
    """Fit, write one bundle per run under `target`, and return the rows of the comparison."""
    runs = [Run(path) for path in read_listing(listing)]
    sets = [read_data(run) for run in runs]
    options = replace(LedgerOptions(), only=common_signals(sets), aligned=True)
    note(f"{len(options.only)} signals in common: {', '.join(options.only)}")
    together = shared_weights([_source(s) for s in sets], options)
    for run, data in zip(runs, sets, strict=True):
        fit_with(_detector(options, together), run, target / data.name, LogFitOptions(alpha=alpha, seed=seed), note)
    rows = leave_policy_out(sets)
    return [(d.name, str(len(d.sequences)), _shown(rows[d.name]["own"]), _shown(rows[d.name]["others"])) for d in sets]


def leave_policy_out(sets: Sequence[DataSet]) -> dict[str, dict[str, Any]]:
    """Per run, within-task AUC (points, five folds, episodes still running) of signal weights learned on it and on the other policies alone.

    Empty when the runs have no signal in common.
    """
    try:
        common = common_signals(sets)
    except EpisodeDataError:
        return {}
    options = replace(LedgerOptions(), only=common, aligned=True, members=("signals",))
    result = {}
    for data in sets:
        others = shared_weights([_source(s) for s in sets if s is not data], options)
        result[data.name] = {
            "own": _within(data, _detector(options)).as_dict(),
            "others": _within(data, _detector(options, others)).as_dict(),
        }
    return result


def _shown(figure: dict[str, Any]) -> str:
    if figure["low"] is None:
        return "no data" if figure["value"] is None else f"{figure['value']:.1f}"
    return f"{figure['value']:.1f} [{figure['low']:.1f}, {figure['high']:.1f}]"


def _source(data: DataSet) -> tuple[Any, list[str]]:
    return data.sequences, [column.name for column in data.columns]


def _detector(options: LedgerOptions, weights: Array | None = None) -> Detector:
    return Detector(
        title="ledger with shared weights",
        source="failsight",
        access=Access.ACTIONS,
        fit=lambda fit: fit_ledger(fit.train, fit.names, options, weights),
    )


def _within(data: DataSet, detector: Detector) -> Estimate:
    """Within-task AUC over five folds, with its interval."""
    folds = splits(PROTOCOLS["folds"], data.facts)
    traces = [judge(data, detector, split, k) for k, split in enumerate(folds)]
    sets = rankings(traces, data.facts, "seen", f"alive{headline_cut(data.facts)}")
    return auc_estimate(sets, bootstraps(data.facts, data.name).episodes, within=True)
