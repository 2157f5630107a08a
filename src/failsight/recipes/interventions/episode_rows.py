"""`episodes.json`: every test episode as a person looks for it, with what the monitor said and what became of each arm."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from failsight.core.types import FAILURE_TYPES, Array
from failsight.evaluation.detection import Scored
from failsight.recipes.interventions.experiment import ExperimentResult
from failsight.storage.disk import writing
from failsight.workflows.fit import DEFAULT
from failsight.workflows.forks import ForkRecord

FILE = "episodes.json"


def write_episodes(result: ExperimentResult, scored: Mapping[str, Sequence[Scored]], folder: Path) -> None:
    """Write the rows beside `summary.json`. Raises StorageError when the disk refuses."""
    metas = {meta.ticket: meta for meta in result.test_run.episodes}
    forks = {record.key: record for record in result.arms}
    rows = [_row(row, metas[row.ticket].instruction, forks.get(metas[row.ticket].key)) for row in scored[DEFAULT]]
    table = {
        "threshold": result.judges.calibration.as_dict()["threshold"],
        "rate_hz": result.test_run.meta.action_spec.rate_hz,
        "arms": list(result.choice.arms),
        "episodes": rows,
    }
    with writing(folder / FILE):
        (folder / FILE).write_text(json.dumps(table, allow_nan=False))


def _row(episode: Scored, instruction: str, record: ForkRecord | None) -> dict[str, Any]:
    """One episode. `lead`: steps from the alarm to the onset, to the end where the onset is not known; below 0: too late."""
    lost = len(episode.alarm) if episode.onset is None else episode.onset
    return {
        "episode": episode.ticket,
        "task": episode.task,
        "instruction": instruction,
        "condition": episode.condition,
        "outcome": "failure" if episode.failed else "success",
        "type": FAILURE_TYPES[episode.kind] if episode.kind >= 0 else "",
        "onset": episode.onset,
        "steps": len(episode.alarm),
        "alarm": episode.trigger,
        "lead": lost - episode.trigger if episode.failed and episode.trigger is not None else None,
        "arms": {name: str(arm.outcome) for name, arm in (record.arms if record else {}).items()},
        "p_fail": rounded(episode.p_fail),
    }


def rounded(values: Array) -> list[float | None]:
    """(T,) with three digits, None where the monitor was blind.

    >>> import numpy as np
    >>> rounded(np.array([0.12345, np.nan]))
    [0.123, None]
    """
    return [round(float(value), 3) if math.isfinite(value) else None for value in values]
