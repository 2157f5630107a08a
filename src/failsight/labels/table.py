"""Label tables on disk: `labels/<labeler>.parquet`, one row per episode; rebuilt whenever thresholds change."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from failsight.core.contracts import Labeler, Labels
from failsight.core.errors import EpisodeDataError
from failsight.core.types import FAILURE_TYPES, Outcome
from failsight.episodes.run import Run


def label_run(run: Run, labeler: Labeler) -> dict[int, Labels]:
    """Label every scored episode and write the table."""
    labels = {}
    for episode in run.read():
        if episode.meta.scored:
            success = episode.meta.outcome == Outcome.SUCCESS
            labels[episode.meta.ticket] = labeler.label(
                episode.meta.task, episode.states, episode.actions, episode.events, success
            )
    folder = run.root / "labels"
    folder.mkdir(exist_ok=True)
    rows = [
        {
            "ticket": ticket,
            "success": label.success,
            "failure_type": label.failure_type or "",
            "onset": -1 if label.onset is None else label.onset,
            "dimension": label.dimension.astype(np.uint8).ravel().tobytes(),
        }
        for ticket, label in labels.items()
    ]
    columns = ["ticket", "success", "failure_type", "onset", "dimension"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / f"{labeler.name}.parquet", index=False)
    return labels


def labeler_name(run: Run) -> str:
    """Logs of others, and simulators without events, know their outcome only; our own runs have events."""
    return "outcome" if run.meta.signals or run.meta.sim in ("metaworld", "libero") else "events"


def read_labels(run: Run) -> dict[int, Labels]:
    """The labels of a run. Raises EpisodeDataError when it was never labelled."""
    labeler = labeler_name(run)
    path = run.root / "labels" / f"{labeler}.parquet"
    if not path.is_file():
        raise EpisodeDataError(f"{run.root} has no labels; make them with: failsight label {run.root}")
    lengths = {meta.ticket: meta.length for meta in run.episodes}
    dimensions = len(run.meta.action_spec.dimensions)
    labels = {}
    for row in pd.read_parquet(path).to_dict("records"):
        steps = lengths[row["ticket"]]
        onset = None if row["onset"] < 0 else int(row["onset"])
        time = np.full(steps, np.inf if row["success"] else np.nan)
        if onset is not None:
            time = np.maximum(onset - np.arange(steps), 0).astype(float)
        labels[int(row["ticket"])] = Labels(
            success=bool(row["success"]),
            failure_type=row["failure_type"] or None,
            onset=onset,
            time_to_failure=time,
            dimension=np.frombuffer(row["dimension"], np.uint8).reshape(steps, dimensions).astype(bool),
        )
    return labels


def type_counts(run: Run, labels: Mapping[int, Labels]) -> pd.DataFrame:
    """Episodes per task (rows) and success or failure type (columns); `unscored` counts the rest.

    Where types are not known, one column `failure` stands in their place.
    """
    untyped = any(not label.success and label.failure_type is None for label in labels.values())
    kinds = ["failure"] if untyped else list(FAILURE_TYPES)
    columns = ["success", *kinds, "unscored"]
    table = pd.DataFrame(0, index=sorted({m.task for m in run.episodes}), columns=columns)
    for meta in run.episodes:
        label = labels.get(meta.ticket)
        column = "unscored" if label is None else "success" if label.success else (label.failure_type or "failure")
        table.loc[meta.task, column] += 1
    table.loc["all"] = table.sum()
    return table
