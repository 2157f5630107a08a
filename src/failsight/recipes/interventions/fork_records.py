"""Fork records as lines of JSON: the first line is the stamp of what they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.textfiles import read_json_lines
from failsight.core.types import EpisodeKey, Outcome, Perturbation
from failsight.evaluation.paired import PairedEpisode
from failsight.workflows.forks import ForkRecord


def read_records(path: Path, stamp: str) -> Iterator[ForkRecord]:
    """Records of an interrupted run; a file of another stamp is removed. Raises EpisodeDataError for a damaged line."""
    if not path.is_file():
        return
    lines = read_json_lines(path)
    _, first = next(lines, (1, {}))
    if first.get("stamp") != stamp:
        path.unlink()
        return
    for number, line in lines:
        try:
            record = record_from(line)
        except (KeyError, TypeError, ValueError, FailsightError) as error:
            raise EpisodeDataError(f"{path} is damaged at line {number}; delete it and run again.") from error
        yield record


def record_json(record: ForkRecord) -> dict[str, Any]:
    """JSON form, without the rows, which are kept apart."""
    data = asdict(replace(record, rows={}))
    del data["rows"]
    data["key"]["perturbations"] = record.key.condition
    return data


def record_from(data: dict[str, Any]) -> ForkRecord:
    """Inverse of `record_json`."""
    key = EpisodeKey(**{**data["key"], "perturbations": Perturbation.parse(data["key"]["perturbations"])})
    return ForkRecord(
        key=key,
        none=_paired_from(data["none"]),
        trigger_step=data["trigger_step"],
        arms={name: _paired_from(arm) for name, arm in data["arms"].items()},
        again=None if data["again"] is None else Outcome(data["again"]),
        error=data.get("error", ""),
        type=data.get("type", ""),
    )


def _paired_from(data: dict[str, Any]) -> PairedEpisode:
    return PairedEpisode(**{**data, "outcome": Outcome(data["outcome"])})
