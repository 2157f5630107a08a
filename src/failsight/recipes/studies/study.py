"""What every training study writes: figures with intervals, tables, remarks, and where they come from."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from failsight.core.textfiles import read_json_lines, read_json_object
from failsight.episodes.meta import write_text_atomic
from failsight.evaluation.intervals import Estimate
from failsight.evaluation.provenance import commit, versions
from failsight.reports.html import write_report


@dataclass(slots=True, kw_only=True)
class Study:
    """A summary in the making."""

    name: str
    question: str
    """One sentence: what is asked."""
    seeds: Mapping[str, int]
    began: float = field(default_factory=time.monotonic)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    bars: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, Any] = field(default_factory=dict)

    def figure(self, key: str, estimate: Estimate) -> Estimate:
        """Keep a figure under a key of `summary.json`."""
        self.figures[key] = estimate.as_dict()
        return estimate

    def bar(self, name: str, estimate: Estimate) -> None:
        """A success rate for the picture."""
        if estimate.value == estimate.value:
            self.bars.append({"name": name, **estimate.as_dict()})

    def curve(self, name: str, folder: Path, most: int = 400) -> None:
        """Losses of a training folder for the picture, at most so many points."""
        rows = [row for _, row in read_json_lines(folder / "losses.jsonl")]
        train = [(row["step"], row["total"]) for row in rows if "total" in row]
        valid = [(row["step"], row["valid_total"]) for row in rows if row.get("valid_total", -1) > 0]
        self.curves[name] = {"train": train[:: max(1, len(train) // most)], "valid": valid}

    def claim(self, title: str, shown: bool, sentence: str) -> None:
        """A headline, shown or not shown."""
        self.claims.append({"title": title, "shown": bool(shown), "sentence": sentence})

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table for people."""
        self.tables.append({"title": title, "columns": list(columns), "rows": [list(row) for row in rows]})

    def write(self, folder: Path) -> Path:
        """`summary.json` and `report.html`; returns the report's path."""
        wall_s = time.monotonic() - self.began
        path = folder / "summary.json"
        if path.is_file():  # a finished study summarised again keeps the time its work took
            wall_s = max(wall_s, float(read_json_object(path).get("wall_s", 0.0)))
        summary = {
            "kind": "study",
            "name": self.name,
            "question": self.question,
            "command": f"failsight run {self.name}",
            "commit": commit(),
            "versions": versions(),
            "seeds": dict(self.seeds),
            "wall_s": round(wall_s, 1),
            "claims": self.claims,
            "figures": self.figures,
            "tables": self.tables,
            "remarks": self.remarks,
            "bars": self.bars,
            "curves": self.curves,
        }
        write_text_atomic(path, json.dumps(summary, indent=1))
        return write_report(folder)
