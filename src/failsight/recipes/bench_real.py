"""`failsight run bench-real`: every detector on every log at hand, under the published and our own protocols.

The logs are the real VLA episodes released with ActProbe (arXiv 2606.08508, Apache-2.0): pi0 on LIBERO-10, pi0.5 and
GR00T on RoboCasa. Any other folder of such logs can stand in their place (`--data`): nothing here is tuned to them.
Each fit writes its traces to one file; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from failsight.core.errors import CalibrationError
from failsight.episodes.meta import write_text_atomic
from failsight.episodes.run import Run
from failsight.evaluation.judging import DataSet, without_short
from failsight.evaluation.protocols import PROTOCOLS
from failsight.predictors.detectors import CONTROLS, DETECTORS
from failsight.recipes.bench_fits import ROWS, make, tickets_for, unmade
from failsight.recipes.bench_logs import ORIGINS, find_data, import_logs, who
from failsight.recipes.bench_options import BenchOptions, with_parts
from failsight.recipes.bench_summary import summarise
from failsight.recipes.experiment import Reporter
from failsight.recipes.log_fitting import read_data
from failsight.reports.html import write_report
from failsight.runtime.pool import run_pool

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
    tick = reporter.count(len(missing)) if missing else None
    for ticket, _ in run_pool(partial(load_all, folder, names), partial(make, folder), missing, workers):
        if tick is not None:
            tick(f"{ticket.data} {ticket.detector}")
    reporter.stage("figures and report")
    summary = summarise(folder, sets, tickets)
    summary["left_out"] = left_out
    for name in sets:
        summary["datasets"][name] |= who(folder, name)
    command = f"failsight run bench-real --workers {workers}" + (f" --data {data}" if data else "")
    command += options.as_arguments()
    summary |= {"command": command, "wall_s": time.monotonic() - began, "resumed": len(missing) < len(tickets)}
    write_text_atomic(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False))
    return write_report(folder)


def _enough(data: DataSet, left_out: dict[str, str], reporter: Reporter) -> bool:
    failures = int(data.facts.failed.sum())
    if min(failures, len(data.facts.task) - failures) >= LEAST:
        return True
    left_out[data.name] = f"{failures} failures of {len(data.facts.task)} episodes are too few to judge"
    reporter.note(f"{data.name} is left out: {left_out[data.name]}")
    return False


__all__ = ["ORIGINS", "find_data", "run_bench_real", "summarise"]
