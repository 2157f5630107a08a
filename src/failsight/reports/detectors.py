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
_VIEWS = (
    ("pooled", "seen"),
    ("within task", "seen_within"),
    ("within condition", "seen_within_condition"),
    ("unseen tasks", "unseen"),
    ("within, unseen", "unseen_within"),
)
_OTHER = (("ECE", "ece"), ("false alarms", "fpr_alpha10"), ("caught by half", "recall_half"))

_LEVELS = (
    ("actions only", "ledger_actions"),
    ("+ proprioception", "ledger_proprioception"),
    ("+ samples or denoising steps", "ledger_signals"),
    ("+ hidden states", "ledger"),
)

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, columns, rows."""


def table_rows(summary: Mapping[str, Any]) -> list[Table]:
    """Per data set: detectors x figures at the headline moment, then under the published protocols where they were run."""
    tables = []
    for name in summary["datasets"]:
        tables.append(_running_table(summary, name))
        if summary["kind"] != "log" and not summary["datasets"][name].get("one_test_run"):
            tables.append(_published_table(summary, name))
    return tables


def figure_at(figures: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """A figure by its dotted path, None where it is not there."""
    found: Any = figures
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def running_columns(summary: Mapping[str, Any], name: str) -> tuple[tuple[str, str], ...]:
    """Views that some detector has at the headline moment, as (title, path)."""
    moment = summary["datasets"][name]["moment"]
    rows = [d[name].get("running", {}).get(moment, {}) for d in summary["detectors"].values() if name in d]
    return tuple((head, f"running.{moment}.{view}") for head, view in _VIEWS if any(view in row for row in rows))


def _running_table(summary: Mapping[str, Any], name: str) -> Table:
    """Evidence at the step, among episodes still running: AUCs, AUPRC and precision@20 with their prevalence, alarms."""
    about, columns = summary["datasets"][name], running_columns(summary, name)
    pooled = f"running.{about['moment']}.seen"
    verdicts = any("claims" in per_set.get(name, {}) for per_set in summary["detectors"].values())
    rows: list[tuple[str, ...]] = []
    for key, per_set in summary["detectors"].items():
        if name not in per_set:
            continue
        f = per_set[name]
        cells = [_points(figure_at(f, path)) for _, path in columns]
        cells += [
            _precision(figure_at(f, f"{pooled}.auprc"), 1),
            _precision(figure_at(f, f"{pooled}.precision_at_20"), 2),
        ]
        cells += [_share(f.get(metric)) for _, metric in _OTHER]
        if verdicts:
            claim = f.get("claims", {}).get("seen")
            cells.append("" if claim is None else "shown" if claim["shown"] else "not shown")
        rows.append(
            (summary["titles"][key]["title"], *cells, f"{f['fit_s']['value']:.2f}", f"{f['step_us']['value']:.0f}")
        )
    title = f"{_caption(name, about)}; at {about['judged_at']}, episodes still running"
    verdict = ("beats clock and prior",) if verdicts else ()
    heads = ("detector", *(c for c, _ in columns), "AUPRC (prevalence)", "precision@20", *(c for c, _ in _OTHER))
    return title, (*heads, *verdict, "fit s", "us/step"), rows


def _precision(row: Mapping[str, Any] | None, digits: int) -> str:
    if row is None or row["value"] is None:
        return "–"
    return f"{row['value']:.{digits}f} ({row['prevalence']:.{digits}f})"


def _published_table(summary: Mapping[str, Any], name: str) -> Table:
    """Largest score up to the cut, finished episodes included, as published: read it beside the clock's row."""
    about = summary["datasets"][name]
    columns = _LONG_COLUMNS if about["moment"] == "25" else _SHORT_COLUMNS
    published = summary.get("published", {}).get(name, {})
    rows: list[tuple[str, ...]] = []
    for key, per_set in summary["detectors"].items():
        if name not in per_set:
            continue
        f = per_set[name]
        cells = [_points(f.get(metric), published.get(metric, {}).get(key)) for _, metric in columns]
        rows.append((summary["titles"][key]["title"], *cells))
    if name in summary.get("selected", {}):
        f = summary["selected"][name]
        cells = [_points(f.get(metric)) for _, metric in columns]
        rows.append(("chosen on validation episodes", *cells))
    title = f"{name}, published protocols: largest score up to the cut, finished episodes included"
    return title, ("detector", *(c for c, _ in columns)), rows


def _caption(name: str, about: Mapping[str, Any]) -> str:
    """Everything but the log's name is counted in it, or recognised from it."""
    policy, suite = about.get("policy", name), about.get("suite", name)
    said = "" if policy == suite == name else f" ({policy} on {suite})"
    share = about["failures"] / about["episodes"]
    counts = f"{about['episodes']} episodes, {about['failures']} failures ({share:.0%}), {about['tasks']} tasks"
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
            lines.append(f"{name}, paper: as printed in arXiv 2606.08508. {about.get('beside_paper', '')}".strip())
        if parts:
            lines.append(f"Not run on {name}: {'; '.join(parts)}.")
    return lines + [f"{name} is left out: {why}" for name, why in summary.get("left_out", {}).items()]


def _points(figure: Mapping[str, Any] | None, published: float | None = None) -> str:
    beside = "" if published is None else f" (paper {published:.1f})"
    if figure is None or figure["value"] is None:
        return "–" + beside
    if figure.get("left_out"):
        counted = "failures" in figure  # a difference of two figures does not count them again
        return (f"n = {figure['failures']} failed, {figure['successes']} not" if counted else "too few") + beside
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
            long = summary["datasets"][name]["moment"] == "25"
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
        within=_within(summary),
        moments=moment_rows(summary),
        means=mean_rows(summary),
        new_tasks=new_task_rows(summary),
        importance=figures.importance(summary["importance"]) if summary.get("importance") else "",
    )


_MOMENTS = (("early", "early"), ("25 %", "25"), ("50 %", "50"))


def _within(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The within-task figure of the default on the first data set."""
    name = next(iter(summary["datasets"]))
    figures = summary["detectors"].get(summary["default"], {}).get(name, {})
    return figure_at(figures, f"running.{summary['datasets'][name]['moment']}.seen_within")


def moment_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Default minus each other detector at every moment, within tasks: log, other, view, three differences."""
    rows: list[tuple[str, ...]] = []
    for name, others in summary.get("running_against_default", {}).get("logs", {}).items():
        for key, views in others.items():
            for head, view in _VIEWS:
                if view in views:
                    cells = (_points(views[view].get(moment)) for _, moment in _MOMENTS)
                    rows.append((name, summary["titles"][key]["title"], head, *cells))
    return rows


def mean_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Mean of logs and moments: other, and its difference per view."""
    return [
        (summary["titles"][key]["title"], *(_points(views.get(view)) for _, view in _VIEWS))
        for key, views in summary.get("running_against_default", {}).get("mean", {}).items()
    ]


def new_task_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """False alarms on tasks nothing was known of: without correction, as deployed, worst task, after ten labels, caught."""
    rows: list[tuple[str, ...]] = []
    for name, detectors in summary.get("new_tasks", {}).items():
        for key, f in detectors.items():
            plain, deployed, after = (f[k] for k in ("uncorrected", "before_labels", "after_ten"))
            rows.append(
                (
                    name,
                    summary["titles"][key]["title"],
                    f"{plain['false_alarm_rate']['value']:.2f}",
                    f"{deployed['false_alarm_rate']['value']:.2f}",
                    f"{deployed['mean_of_tasks']:.2f}",
                    f"{deployed['worst_task']:.2f}",
                    _share(after["mean_of_tasks"]),
                    _share(deployed["recall"]),
                    _share(deployed["recall_half"]),
                )
            )
    return rows


def _levels(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The same detector with more and more access: what each level buys, within tasks and pooled."""
    rows: list[tuple[str, ...]] = []
    for name in summary["datasets"]:
        moment = summary["datasets"][name]["moment"]
        pooled, within = (f"running.{moment}.{view}" for view in ("seen", "seen_within"))
        for level, key in _LEVELS:
            f = summary["detectors"].get(key, {}).get(name)
            bare = "hidden states" in summary["datasets"][name].get("lacking", {}).values()
            if f is not None and not (key == "ledger" and bare):
                rows.append((name, level, _points(figure_at(f, pooled)), _points(figure_at(f, within))))
    return rows
