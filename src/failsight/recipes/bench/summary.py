"""The summary of `failsight run bench-real`, from the stored traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from failsight.episodes.run import Run
from failsight.evaluation.bench_figures import (
    ALPHA,
    auc_figures,
    bootstraps,
    control_estimate,
    other_figures,
    rankings,
    select,
)
from failsight.evaluation.claims import CONTROL_ROWS, Bootstraps, paired
from failsight.evaluation.judging import DataSet
from failsight.evaluation.leaks import find_leaks
from failsight.evaluation.log_judging import describe
from failsight.evaluation.moments import (
    VIEWS,
    behind,
    differences,
    headline_claims,
    mean_of_logs,
    moment_figures,
)
from failsight.evaluation.new_tasks import new_task_figures
from failsight.evaluation.protocols import headline_cut
from failsight.evaluation.provenance import commit, versions
from failsight.evaluation.ranking import difference
from failsight.predictors.ablation import ABLATION
from failsight.predictors.detectors import CONTROLS, DETECTORS, titles
from failsight.recipes.bench.fits import NEW_TASKS, ROWS, Kept, Ticket, stored, with_blend
from failsight.recipes.bench.logs import who
from failsight.workflows.fit_many import leave_policy_out

PEERS = ("running_mean", "ledger", "hazard_ensemble", "actprobe", "safe_mlp")
"""What the default must not be behind within tasks on any log."""
_PAPER = ("cosine_knn", "logpzo", "stac_single", "safe_lstm", "safe_mlp", "actprobe")
PUBLISHED = {
    "pi0_libero": {
        "auc25_seen_alone": dict(zip(_PAPER, (68.9, 73.1, 65.3, 78.2, 77.3, 80.1), strict=True)),
        "auc25_unseen": dict(zip(_PAPER, (57.2, 58.3, 65.2, 59.2, 58.9, 71.4), strict=True)),
    },
    "groot_robocasa": {
        "auc25_seen_alone": dict(zip(_PAPER, (65.5, 68.6, 73.6, 70.9, 74.2, 77.4), strict=True)),
        "auc25_unseen": dict(zip(_PAPER, (70.3, 65.5, 73.8, 61.3, 61.5, 76.3), strict=True)),
    },
    "pi05_robocasa": {
        "early_seen_alone": dict(zip(_PAPER, (56.3, 70.7, 62.3, 74.9, 73.7, 70.0), strict=True)),
        "early_unseen": dict(zip(_PAPER, (44.4, 67.2, 66.0, 73.1, 71.0, 73.8), strict=True)),
    },
}
"""As printed in arXiv 2606.08508 (seeds 0-2, a quarter of the longest test episode), by the name of the released log."""
_THEIR_TASKS = {"pi0_libero": 10, "groot_robocasa": 24, "pi05_robocasa": 24}


class _Log:
    """One data set with its traces and resamples."""

    def __init__(self, folder: Path, name: str, data: DataSet, tickets: Sequence[Ticket]) -> None:
        mine = [t for t in tickets if t.data == name]
        self.folder, self.name, self.data, self.facts = folder, name, data, data.facts
        self.rows: Kept = with_blend(stored(folder, [t for t in mine if t.is_row], data), data)
        self.shuffled: Kept = with_blend(stored(folder, [t for t in mine if not t.is_row], data), data)
        self.boots: Bootstraps = bootstraps(data.facts, name)
        self.cut = headline_cut(data.facts)
        self.who = who(folder, name)

    @property
    def published(self) -> dict[str, dict[str, float]]:
        """The paper's figures, where this is one of its logs."""
        return PUBLISHED.get(self.who["release"], {})

    def describe(self) -> dict[str, Any]:
        """Counts, what it lacks, who drove, and how it differs from what the paper's figures were made on."""
        return {**describe(self.data), **self.who, "beside_paper": self._beside_paper() if self.published else ""}

    def _beside_paper(self) -> str:
        there, here = _THEIR_TASKS[self.who["release"]], len(np.unique(self.facts.task))
        parts = [f"{there} tasks there, {here} here"] if there != here else []
        parts += (
            [] if self.data.sequences[0].hidden is not None else ["no hidden states here, which four rows there need"]
        )
        parts += ["another cut there (a quarter of the longest test episode)"] if self.cut == "early" else []
        return "; ".join(["seeds 0 to 2 there", *parts]).capitalize() + "."

    @property
    def controls(self) -> Kept:
        """Rows a headline must beat."""
        return {name: self.rows[name] for name in CONTROL_ROWS if name in self.rows}


def summarise(folder: Path, sets: Mapping[str, DataSet], tickets: Sequence[Ticket]) -> dict[str, Any]:
    """The summary; keys are documented in docs/summary.md."""
    logs = [_Log(folder, name, data, tickets) for name, data in sets.items()]
    rows = {log.name: _rows(log) for log in logs}
    default = next((n for n in DETECTORS if all(n in log.rows for log in logs)), next(iter(DETECTORS)))
    return {
        "kind": "bench",
        "default": default,
        "detectors": _by_detector(rows, DETECTORS),
        "losses": _by_detector(rows, ABLATION),
        "permuted": _permuted(logs),
        "against_default": {log.name: _against_default(log, default) for log in logs},
        "running_against_default": running_against(logs, default),
        "new_tasks": {log.name: _new_tasks(log) for log in logs},
        "selected": {log.name: _selected(log) for log in logs},
        "leave_policy_out": _leave_policy_out(sets),
        "datasets": {log.name: log.describe() for log in logs},
        "leaks": {log.name: _leaks(log) for log in logs},
        "published": {log.name: log.published for log in logs if log.published},
        "titles": titles(ROWS),
        "versions": versions(),
        "commit": commit(),
    }


def _leave_policy_out(sets: Mapping[str, DataSet]) -> dict[str, Any]:
    """Empty when there is one log, or the logs share no signal."""
    if len(sets) < 2 or not set.intersection(*({c.name for c in data.columns} for data in sets.values())):
        return {}
    return leave_policy_out(list(sets.values()))


def _rows(log: _Log) -> dict[str, dict[str, Any]]:
    """Every figure of every detector on one log."""
    return {name: _row(log, name) for name in log.rows if "folds" in log.rows[name]}


def _row(log: _Log, name: str) -> dict[str, Any]:
    traces, prior = log.rows[name], ROWS[name].adds_prior
    figures = auc_figures(traces, log.facts, log.boots, prior, name == "permuted")
    figures |= other_figures(traces, log.facts, log.cut, log.data.rate_hz, f"{log.name} {name}")
    if name not in ABLATION:
        figures["running"] = moment_figures(traces, log.facts, log.boots, prior)
    if name not in ABLATION and name not in CONTROLS:
        claims = headline_claims(traces, log.controls, log.facts, log.boots, prior)
        figures["claims"] = claims
        figures["shown"] = claims.get("seen", {}).get("shown", False)
        figures |= _over_published(log, name)
    return figures


def _over_published(log: _Log, name: str) -> dict[str, Any]:
    """Under the published seen protocol: paired against clock and task prior (maximum up to the cut, finished included)."""
    protocol = "actprobe_seen" if log.cut == "25" else "safe"
    if any(protocol not in log.rows.get(row, {}) for row in (name, "clock", "task_prior")):
        return {}

    def sets(row: str) -> Any:
        return rankings(log.rows[row][protocol], log.facts, "seen", log.cut, prior=ROWS[row].adds_prior)

    gaps = {c: difference(sets(name), sets(c), log.boots.episodes)[0] for c in ("clock", "task_prior")}
    return {f"over_{control}": gap.as_dict() for control, gap in gaps.items()}


def _by_detector(rows: Mapping[str, Mapping[str, Any]], names: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    table = {n: {log: r[n] for log, r in rows.items() if n in r} for n in names}
    return {name: row for name, row in table.items() if row}


def _permuted(logs: Sequence[_Log]) -> dict[str, dict[str, Any]]:
    """Within-task AUC of every supervised detector fitted on permuted labels."""
    table: dict[str, dict[str, Any]] = {}
    for log in logs:
        for name, traces in log.shuffled.items():
            control = control_estimate(traces["folds"], log.facts, log.cut, len(log.shuffled))
            table.setdefault(name, {})[log.name] = control.as_dict()
    return table


def _selected(log: _Log) -> dict[str, Any]:
    candidates = {n: t for n, t in log.rows.items() if n in DETECTORS and DETECTORS[n].supervised}
    if not candidates:
        return {}
    return auc_figures(select(candidates, log.facts, log.cut), log.facts, log.boots, True)


def _new_tasks(log: _Log) -> dict[str, Any]:
    """What the alarm does on tasks nothing was known of, for every detector that ran under that protocol."""
    found = {
        n: new_task_figures(t[NEW_TASKS], log.facts, ALPHA, log.data.rate_hz)
        for n, t in log.rows.items()
        if NEW_TASKS in t
    }
    return {name: figures for name, figures in found.items() if figures}


def running_against(logs: Sequence[_Log], default: str) -> dict[str, Any]:
    """The default minus every peer and control, evidence at the moment among episodes still running, paired.

    `logs`: per log, peer, view and moment; `mean`: mean of logs and moments per peer and view; `holm`: of the within-task
    differences of the peers on any log those that are behind after Holm's correction.
    """
    each: dict[str, Any] = {}
    cells: dict[str, dict[str, list[Any]]] = {}
    tests: dict[str, Any] = {}
    for log in logs:
        for name in (n for n in log.rows if n != default and n not in ABLATION and default in log.rows):
            for view in VIEWS:
                found = differences(
                    log.rows[default], log.rows[name], log.facts, log.boots, view, ROWS[name].adds_prior
                )
                if not found:
                    continue
                row = {moment: paired(d, n) for moment, (d, n) in found.items()}
                each.setdefault(log.name, {}).setdefault(name, {})[view] = row
                cells.setdefault(name, {}).setdefault(view, []).extend(found.values())
                if name in PEERS and view.endswith("_within"):
                    tests |= {f"{log.name} {name} {view} {moment}": r for moment, r in row.items()}
    means = {name: {v: mean_of_logs(c) for v, c in views.items()} for name, views in cells.items()}
    return {"logs": each, "mean": means, "holm": behind(tests)}


def _against_default(log: _Log, default: str) -> dict[str, Any]:
    """Paired differences default - other over the five folds up to the cut, with the prior for all, and within tasks."""

    def sets(name: str, prior: bool) -> Any:
        return rankings(log.rows[name]["folds"], log.facts, "seen", log.cut, prior=prior)

    table = {}
    for name in log.rows:
        if name == default or name in ABLATION or "folds" not in log.rows[name] or default not in log.rows:
            continue
        pooled, p = difference(sets(default, True), sets(name, True), log.boots.episodes)
        within, p_within = difference(sets(default, False), sets(name, False), log.boots.episodes, within=True)
        table[name] = {
            "pooled": {**pooled.as_dict(), "p": _number(p)},
            "within": {**within.as_dict(), "p": _number(p_within)},
        }
    return table


def _leaks(log: _Log) -> list[dict[str, Any]]:
    seeds = {meta.ticket: meta.seed for meta in Run(log.folder / "data" / log.name).episodes}
    ours = [seeds[s.ticket] for s in log.data.sequences]
    return [leak.as_dict() for leak in find_leaks(log.data.sequences, log.facts, ours)]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
