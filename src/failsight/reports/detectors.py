"""Detector comparisons (`bench`) and fitted logs (`log`): tables for the console, one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from failsight.reports import figures
from failsight.reports.verdict import number

_LONG_COLUMNS = (
    ("seen, 25 %", "auc25_seen"),
    ("without prior", "auc25_seen_alone"),
    ("unseen, 25 %", "auc25_unseen"),
    ("within task", "auc25_within"),
    ("within, running at 50 %", "auc50_alive_within"),
)
_SHORT_COLUMNS = (
    ("seen, early", "early_seen"),
    ("without prior", "early_seen_alone"),
    ("unseen, early", "early_unseen"),
    ("within, seen", "early_within_seen"),
    ("within, unseen", "early_within_unseen"),
)
_LOG_LONG = (
    ("pooled, 25 %", "auc25_folds"),
    ("within task", "auc25_within"),
    ("within, running at 50 %", "auc50_alive_within"),
)
_LOG_SHORT = (("pooled, early", "early_folds"), ("within task", "early_within_folds"))
_TABLETOP = (
    ("running at 25 %", "auc25_alive"),
    ("within task", "auc25_alive_within"),
    ("running at 50 %", "auc50_alive"),
    ("within task, 50 %", "auc50_alive_within"),
)
_OTHER = (("ECE", "ece"), ("false alarms", "fpr_alpha10"), ("caught by half", "recall_half"))

_PAPER = {
    "pi0_libero": "Seeds 0-2 there, 0-4 here; the hidden states behind four of its rows were not released.",
    "pi05_robocasa": "24 tasks there, 12 here, and a quarter of the longest test episode as cut: not the same quantity.",
}
_LEVELS = (
    ("actions only", "ledger_actions"),
    ("+ proprioception", "ledger_proprioception"),
    ("+ samples or denoising steps", "ledger_signals"),
    ("+ hidden states", "ledger"),
)

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, columns, rows."""


def table_rows(summary: Mapping[str, Any]) -> list[Table]:
    """One table per data set: detectors x figures with intervals, published figures beside ours."""
    return [_table(summary, name) for name in summary["datasets"]]


def _columns(summary: Mapping[str, Any], name: str) -> tuple[tuple[str, str], ...]:
    long = summary["datasets"][name]["judged_at"].startswith("25")
    if summary["datasets"][name].get("one_test_run"):
        return _TABLETOP
    if summary["kind"] == "log":
        return _LOG_LONG if long else _LOG_SHORT
    return _LONG_COLUMNS if long else _SHORT_COLUMNS


def _table(summary: Mapping[str, Any], name: str) -> Table:
    about, columns = summary["datasets"][name], _columns(summary, name)
    published = summary.get("published", {}).get(name, {})
    verdicts = any("shown" in per_set.get(name, {}) for per_set in summary["detectors"].values())
    rows: list[tuple[str, ...]] = []
    for key, per_set in summary["detectors"].items():
        if name not in per_set:
            continue
        f = per_set[name]
        cells = [_points(f.get(metric), published.get(metric, {}).get(key)) for _, metric in columns]
        cells += [_share(f.get(metric)) for _, metric in _OTHER]
        if verdicts:
            cells.append({True: "shown", False: "not shown", None: ""}[f.get("shown")])
        rows.append(
            (summary["titles"][key]["title"], *cells, f"{f['fit_s']['value']:.2f}", f"{f['step_us']['value']:.0f}")
        )
    if name in summary.get("selected", {}):
        f = summary["selected"][name]
        cells = [_points(f.get(metric)) for _, metric in columns]
        rows.append(("chosen on validation episodes", *cells, *[""] * (len(_OTHER) + verdicts + 2)))
    title = _caption(name, about)
    verdict = ("beats clock and task",) if verdicts else ()
    heads = ("detector", *(c for c, _ in columns), *(c for c, _ in _OTHER), *verdict, "fit s", "us/step")
    return title, heads, rows


def _caption(name: str, about: Mapping[str, Any]) -> str:
    """Everything but the log's name is counted in it, or recognised from it."""
    policy, suite = about.get("policy", name), about.get("suite", name)
    said = "" if policy == suite == name else f" ({policy} on {suite})"
    counts = f"{about['episodes']} episodes, {about['failures']} failures, {about['tasks']} tasks"
    return f"{name}{said}: {counts}"


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Per data set, where published figures come from, which detectors could not run and what the log lacks."""
    lines = []
    for name, about in summary["datasets"].items():
        missing: dict[str, list[str]] = {}
        for key, lacks in about.get("lacking", {}).items():
            missing.setdefault(lacks, []).append(summary["titles"][key]["title"])
        parts = [f"{', '.join(titles)} (it has no {lacks})" for lacks, titles in missing.items()]
        if name in summary.get("published", {}):
            lines.append(f"{name}, paper: as printed in arXiv 2606.08508. {_PAPER.get(name, '')}".strip())
        if parts:
            lines.append(f"Not run on {name}: {'; '.join(parts)}.")
    return lines + [f"{name} is left out: {why}" for name, why in summary.get("left_out", {}).items()]


def _points(figure: Mapping[str, Any] | None, published: float | None = None) -> str:
    beside = "" if published is None else f" (paper {published:.1f})"
    if figure is None or figure["value"] is None:
        return "–" + beside
    span = "" if figure["low"] is None else f" [{figure['low']:.0f}, {figure['high']:.0f}]"
    return f"{figure['value']:.1f}{span}{beside}"


def _share(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "–"
    return f"{figure['value']:.3f}"


def control_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Learned detectors on permuted labels: within-task AUC and whether 50 lies in the interval."""
    rows: list[tuple[str, ...]] = []
    for key, per_set in summary.get("permuted", {}).items():
        for name, row in per_set.items():
            if row["low"] is None:
                continue
            inside = "yes" if row["low"] <= 50 <= row["high"] else "NO"
            rows.append((summary["titles"][key]["title"], name, _points(row), inside))
    return rows


def loss_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The loss ablation: pooled with prior, within task, both over held-out folds."""
    rows: list[tuple[str, ...]] = []
    for key, per_set in summary.get("losses", {}).items():
        for name, f in per_set.items():
            long = summary["datasets"][name]["judged_at"].startswith("25")
            pooled, within = ("auc25_folds", "auc25_within") if long else ("early_folds", "early_within_folds")
            if summary["datasets"][name].get("one_test_run"):
                pooled, within = "auc50_alive", "auc50_alive_within"
            rows.append((summary["titles"][key]["title"], name, _points(f.get(pooled)), _points(f.get(within))))
    return rows


def difference_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Paired differences default - other with p-values."""
    rows: list[tuple[str, ...]] = []
    for name, table in summary.get("against_default", {}).items():
        for key, row in table.items():
            p, q = row["pooled"], row["within"]
            rows.append((summary["titles"][key]["title"], name, _points(p), _p(p["p"]), _points(q), _p(q["p"])))
    return rows


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def render(summary: Mapping[str, Any]) -> str:
    """The page as text; nothing in it refers to another file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("failsight.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    alarms = [{**a, "svg": figures.evidence(a)} for a in summary.get("alarms", [])]
    return environment.get_template("detectors.html").render(
        s=summary,
        tables=table_rows(summary),
        lacking=remarks(summary),
        controls=control_rows(summary),
        differences=difference_rows(summary),
        losses=loss_rows(summary),
        truth=summary.get("ground_truth"),
        policies=[(n, _points(r["own"]), _points(r["others"])) for n, r in summary.get("leave_policy_out", {}).items()],
        levels=_levels(summary),
        alarms=alarms,
        within=next(m for head, m in _columns(summary, next(iter(summary["datasets"]))) if "within" in head),
        importance=figures.importance(summary["importance"]) if summary.get("importance") else "",
    )


def _levels(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The same detector with more and more access: what each level buys, within tasks and pooled."""
    rows: list[tuple[str, ...]] = []
    for name in summary["datasets"]:
        columns = _columns(summary, name)
        pooled, within = columns[0][1], next(metric for head, metric in columns if "within" in head)
        for level, key in _LEVELS:
            f = summary["detectors"].get(key, {}).get(name)
            bare = "hidden states" in summary["datasets"][name].get("lacking", {}).values()
            if f is not None and not (key == "ledger" and bare):
                rows.append((name, level, _points(f.get(pooled)), _points(f.get(within))))
    return rows
