"""`failsight episodes`: the episodes of a run as a table, filtered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from failsight.core.contracts import Labels
from failsight.core.errors import UnknownNameError
from failsight.core.types import FAILURE_TYPES, Outcome
from failsight.episodes.meta import EpisodeMeta
from failsight.episodes.run import Run
from failsight.episodes.verdicts import count_alarms, read_verdicts
from failsight.labels.table import read_labels

COLUMNS = ("episode", "task", "perturbation", "outcome", "type", "onset", "steps")
_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeFilter:
    """Which episodes to list."""

    failed: bool = False
    type: str | None = None
    task: str | None = None
    condition: str | None = None

    def keeps(self, meta: EpisodeMeta, label: Labels | None) -> bool:
        """Whether an episode is wanted."""
        return (
            (not self.failed or meta.outcome == Outcome.FAILURE)
            and (self.type is None or (label is not None and label.failure_type == self.type))
            and (self.task is None or self.task in meta.task)
            and (self.condition is None or self.condition in meta.condition)
        )


def list_episodes(folder: Path, wanted: EpisodeFilter) -> tuple[tuple[str, ...], list[tuple[object, ...]], int]:
    """Columns, a row per episode, and how many episodes the run has.

    `alarms` is there when the run was judged, `error` when an episode errored. Raises UnknownNameError for an unknown
    type.
    """
    if wanted.type is not None and wanted.type not in FAILURE_TYPES:
        raise UnknownNameError("failure type", wanted.type, FAILURE_TYPES)
    run = Run(folder)
    labels, verdicts = read_labels(run), read_verdicts(folder)
    alarms = count_alarms(verdicts)
    errored = any(meta.error for meta in run.episodes)
    columns = (*COLUMNS, *(["alarms"] if verdicts else []), *(["error"] if errored else []))
    rows: list[tuple[object, ...]] = []
    for meta in run.episodes:
        label = labels.get(meta.ticket)
        if wanted.keeps(meta, label):
            kind, onset = (label.failure_type, label.onset) if label else (None, None)
            row = (meta.ticket, meta.task, meta.condition, meta.outcome, kind or "", "" if onset is None else onset)
            more = [alarms.get(meta.ticket, "")] if verdicts else []
            rows.append((*row, meta.length, *more, *([meta.error[:_SHOWN]] if errored else [])))
    return columns, rows, len(run.episodes)
