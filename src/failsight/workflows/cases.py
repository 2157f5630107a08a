"""The comparison of trained policies: one row per `case.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError
from failsight.core.textfiles import read_json_object
from failsight.policies.vla.store import read_config

COLUMNS = (
    "case", "date", "backbone", "from", "tuning", "head", "history", "actions", "data", "epochs", "loss", "success", "state",
)  # fmt: skip


def read_cases(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every training below a folder. Raises EpisodeDataError when there is none."""
    found = [(path.parent, read_json_object(path)) for path in sorted(folder.rglob("case.json"))]
    if not found:
        raise EpisodeDataError(
            f"No trained policies under {folder}; train one with: failsight train-policy --data FOLDER"
        )
    return found


def table_of_cases(folder: Path) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows, newest last."""
    rows = [_row(path.relative_to(folder), path, case) for path, case in read_cases(folder)]
    return COLUMNS, sorted(rows, key=lambda row: row[1])


def _row(name: Path, path: Path, case: Mapping[str, Any]) -> tuple[str, ...]:
    frames = max(1, int(case.get("frames", 0)))
    epochs = case.get("steps", 0) * case.get("windows_per_step", 0) / frames
    tuning = f"{case['tuning']} r{case['lora_rank']}" if case.get("lora_rank") else str(case.get("tuning", ""))
    head = f"{case.get('head', '')}{' + failure' if case.get('failure_head') else ''}"
    history = f"{case.get('history', '')} {case.get('window', '')}/{case.get('chunk', '')}"
    return (
        str(name),
        str(case.get("date", "")),
        str(case.get("backbone", "")),
        Path(str(case.get("initialisation", ""))).name,
        tuning,
        head,
        history,
        str(case.get("actions", "")),
        f"{case.get('episodes', '')} {Path(str(case.get('data', ''))).name.split(':')[0]}",
        f"{epochs:.1f}",
        _loss(path, case),
        _success(case),
        str(case.get("state", "")),
    )


def _loss(path: Path, case: Mapping[str, Any]) -> str:
    if not (path / "best" / "config.json").is_file():
        return "–"
    value = read_config(path / "best").provenance.get("valid_total")
    return "–" if value is None or value != value else f"{value:.4f}"


def _success(case: Mapping[str, Any]) -> str:
    figure = case.get("success")
    if not figure or figure["value"] is None:
        return "–"
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}] {case.get('sim', case.get('simulator', ''))}"
