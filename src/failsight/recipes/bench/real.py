"""`failsight run bench-real`: every detector on every log at hand, under the published and our own protocols.

The logs are the real VLA episodes released with ActProbe (arXiv 2606.08508, Apache-2.0): pi0 on LIBERO-10, pi0.5 and
GR00T on RoboCasa. Any other folder of such logs can stand in their place (`--data`): nothing here is tuned to them.
Each fit writes its traces to one file; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from failsight.core.errors import CalibrationError, FailsightError
from failsight.episodes.meta import write_text_atomic
from failsight.episodes.run import Run
from failsight.evaluation.judging import DataSet, without_short
from failsight.evaluation.protocols import PROTOCOLS
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.detectors import CONTROLS, DETECTORS
from failsight.recipes.bench.fits import ROWS, Ticket, make, tickets_for, unmade
from failsight.recipes.bench.logs import ORIGINS, find_data, import_logs
from failsight.recipes.bench.options import BenchOptions, with_parts
from failsight.recipes.bench.summary import summarise
from failsight.reports.html import write_report
from failsight.runtime.pool import run_pool
from failsight.workflows.fit import read_data
from failsight.workflows.progress import Reporter

LEAST = 5
"""Failures, and successes, below which a log is left out."""


def load_data(root: Path, name: str) -> DataSet:
    """One imported log."""
    return without_short(read_data(Run(root / "data" / name)))


def load_all(root: Path, names: Sequence[str]) -> dict[str, DataSet]:
    """Imported logs, by name."""
    return {name: load_data(root, name) for name in names}


def run_bench_real(
    folder: Path, workers: int, reporter: Reporter, data: Path | None = None, options: BenchOptions | None = None
) -> Path:
    """Run or finish the comparison; returns the report's path."""
    began, options = time.monotonic(), options or BenchOptions()
    options.check(ROWS, PROTOCOLS)
    place = find_data(data)
    reporter.stage(f"reading logs from {place}")
    names, left_out = import_logs(place, folder, reporter.note)
    sets = {name: data for name, data in load_all(folder, names).items() if _enough(data, left_out, reporter)}
    if not sets:
        raise CalibrationError(
            f"No log in {place} has {LEAST} failures and {LEAST} successes; there is nothing to judge."
        )
    beside = with_parts(ROWS, (*options.detectors, next(iter(DETECTORS)), *CONTROLS))
    tickets = options.choose((t for name, d in sets.items() for t in tickets_for(name, d)), beside)
    missing = unmade(folder, tickets, sets)
    reporter.stage(f"fitting: {len(tickets)} fits, {len(tickets) - len(missing)} there already")
    refused = _fit(folder, names, missing, workers, reporter)
    left_out |= {f"{detector} on {log}": why for (log, detector), why in refused.items()}
    whole = [
        name for name in sets if not any((name, row) in refused for row in with_parts(ROWS, [next(iter(DETECTORS))]))
    ]
    sets = {name: sets[name] for name in whole}  # a log without the default would make another one the default of all
    if not sets:
        raise CalibrationError(f"Nothing could be fitted on the logs in {place}. {next(iter(refused.values()))}")
    tickets = [t for t in tickets if t.data in sets]
    reporter.stage("figures and report")
    summary = summarise(folder, sets, tickets)
    summary["left_out"] = left_out
    command = f"failsight run bench-real --workers {workers}" + (f" --data {data}" if data else "")
    command += options.as_arguments()
    summary |= {"command": command, "wall_s": time.monotonic() - began, "resumed": len(missing) < len(tickets)}
    write_text_atomic(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False))
    return write_report(folder)


def _fit(
    folder: Path, names: Sequence[str], missing: Sequence[Ticket], workers: int, reporter: Reporter
) -> dict[tuple[str, str], str]:
    """Make the fits; (log, detector) -> why one could not be made."""
    tick = reporter.count(len(missing)) if missing else None
    refused: dict[tuple[str, str], str] = {}
    for ticket, refusal in run_pool(partial(load_all, folder, names), partial(_attempt, folder), missing, workers):
        if refusal and (ticket.data, ticket.detector) not in refused:
            refused[ticket.data, ticket.detector] = refusal
            reporter.note(f"{ticket.detector} on {ticket.data} is left out: {refusal}")
        if tick is not None:
            tick(f"{ticket.data} {ticket.detector}")
    return refused


def _attempt(folder: Path, sets: Mapping[str, DataSet], ticket: Ticket) -> str:
    """Make one fit; why it cannot be made, empty when it was. One log nothing can be learned from ends nothing else."""
    try:
        make(folder, sets, ticket)
    except FailsightError as error:
        return str(error)
    return ""


def _enough(data: DataSet, left_out: dict[str, str], reporter: Reporter) -> bool:
    failures = int(data.facts.failed.sum())
    if min(failures, len(data.facts.task) - failures) < LEAST:
        why = f"{failures} failures of {len(data.facts.task)} episodes are too few to judge"
    elif not _varies(data.sequences):
        why = "no signal varies and no hidden state was recorded; there is nothing to learn from"
    else:
        return True
    left_out[data.name] = why
    reporter.note(f"{data.name} is left out: {why}")
    return False


def _varies(sequences: Sequence[LabelledSequence]) -> bool:
    """Whether there are hidden states, or a signal that is not one number throughout."""
    signals = np.concatenate([s.signals for s in sequences])
    return sequences[0].hidden is not None or bool((np.fmax.reduce(signals) > np.fmin.reduce(signals)).any())


__all__ = ["ORIGINS", "find_data", "run_bench_real", "summarise"]
