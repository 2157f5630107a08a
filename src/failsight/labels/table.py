"""Label tables on disk: `labels/<labeler>.parquet`, one row per episode; rebuilt whenever thresholds change."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from failsight.core.contracts import Labeler, Labels
from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.foreign import read_count, read_success
from failsight.core.types import FAILURE_TYPES, Outcome
from failsight.episodes.meta import EpisodeMeta
from failsight.episodes.run import Episode, Run
from failsight.storage.derived import read_derived, write_derived

_HAD_EVENTS = ("tabletop", "navigation", "navigation-2d")
"""Simulators whose runs were labelled from events before a run said what labels it."""


def label_run(run: Run, labeler: Labeler) -> dict[int, Labels]:
    """Label every scored episode and write the table. Raises EpisodeDataError for labels an episode cannot have."""
    labels = {}
    for episode in run.read():
        if episode.meta.scored:
            labels[episode.meta.ticket] = _label(labeler, episode)
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
    table = pa.Table.from_pandas(pd.DataFrame(rows, columns=columns), preserve_index=False)
    write_derived(run.root, run.root / "labels" / f"{labeler.name}.parquet", table)
    return labels


def _label(labeler: Labeler, episode: Episode) -> Labels:
    """One episode's labels. Raises EpisodeDataError for what no reader could take, and for what a labeler of somebody
    else raises.
    """
    meta = episode.meta
    success, where = meta.outcome == Outcome.SUCCESS, f"The labeler {labeler.name!r}, episode {meta.ticket}"
    try:
        label = labeler.label(meta.task, episode.states, episode.actions, episode.events, success)
    except Exception as error:
        if isinstance(error, FailsightError) or type(labeler).__module__.startswith("failsight."):
            raise
        raise EpisodeDataError(f"{where}: {type(error).__name__}: {error}.") from error
    wrong = {
        "success": label.success != success,
        "failure type": label.failure_type not in ((None,) if success else (None, *FAILURE_TYPES)),
        "onset": label.onset is not None and (success or not 0 <= label.onset < meta.length),
        "dimension": np.shape(label.dimension) != episode.actions.shape,
    }
    if any(wrong.values()):
        raise EpisodeDataError(f"{where}: not a label of it: {', '.join(name for name in wrong if wrong[name])}.")
    return label


def labeler_name(run: Run) -> str:
    """Name of a run's label table, as it says itself; of older runs, by their simulator."""
    return run.meta.labeler or ("events" if run.meta.sim in _HAD_EVENTS and not run.meta.signals else "outcome")


def read_labels(run: Run) -> dict[int, Labels]:
    """The labels of a run. Raises EpisodeDataError when it was never labelled."""
    labeler = labeler_name(run)
    path = run.root / "labels" / f"{labeler}.parquet"
    if not path.is_file():
        raise EpisodeDataError(f"{run.root} has no labels; make them with: failsight label {run.root}")
    metas = {meta.ticket: meta for meta in run.episodes}
    dimensions = len(run.meta.action_spec.dimensions)
    labels = {}
    for i, row in enumerate(read_derived(run.root, path).to_pylist()):
        try:
            meta = metas[row["ticket"]]
            labels[meta.ticket] = _labels(row, meta, dimensions, f"{path} row {i}")
        except (KeyError, TypeError, ValueError) as error:
            raise EpisodeDataError(
                f"{path} row {i} does not fit the run ({error}); label it again with: failsight label {run.root}"
            ) from error
    if labels.keys() != {meta.ticket for meta in run.episodes if meta.scored}:
        raise EpisodeDataError(
            f"{path} labels {len(labels)} episodes, other ones than the run's scored ones; label it again with: "
            f"failsight label {run.root}"
        )
    return labels


def _labels(row: Mapping[Hashable, Any], meta: EpisodeMeta, dimensions: int, where: str) -> Labels:
    success, kind = read_success(row["success"], f"{where}: success"), row["failure_type"]
    onset = read_count(row["onset"], f"{where}: onset", -1, meta.length)
    if success != (meta.outcome == Outcome.SUCCESS) or kind not in ("", *FAILURE_TYPES):
        raise ValueError(f"episode {meta.ticket} is a {meta.outcome}, the label says {kind or success}")
    time = np.full(meta.length, np.inf if success else np.nan)
    if onset >= 0:
        time = np.maximum(onset - np.arange(meta.length), 0).astype(float)
    return Labels(
        success=success,
        failure_type=kind or None,
        onset=None if onset < 0 else onset,
        time_to_failure=time,
        dimension=np.frombuffer(row["dimension"], np.uint8).reshape(meta.length, dimensions).astype(bool),
    )


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
