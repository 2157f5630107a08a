"""Training studies (`kind: study`): tables for the console, one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from failsight.reports import figures


def render(summary: Mapping[str, Any]) -> str:
    """The page as text; nothing in it refers to another file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("failsight.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("study.html").render(
        s=summary,
        bars=figures.rates(summary["bars"]) if summary.get("bars") else "",
        learning=figures.learning(summary["curves"]) if summary.get("curves") else "",
    )


def table_rows(summary: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Title, columns and rows of every table."""
    return [(t["title"], tuple(t["columns"]), [tuple(row) for row in t["rows"]]) for t in summary["tables"]]
