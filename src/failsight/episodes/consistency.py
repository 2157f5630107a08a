"""A run tells the same story everywhere: `run.json`, the tables of episodes, and the rows. Each check names the file."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from failsight.core.errors import EpisodeDataError
from failsight.episodes.meta import EpisodeMeta, RunMeta

INDEX_COLUMNS = ("dataset_from_index", "dataset_to_index", "length", "data/chunk_index", "data/file_index")
_KINDS = ("halffloat", "float", "double", "int64", "bool")
_ADVICE = "The files are of different runs or damaged: `failsight verify` names them; restore them from a copy."


def plan_fits(path: Path, metas: Sequence[EpisodeMeta], run: RunMeta) -> None:
    """The table of episodes against the plan in `run.json`: as many, in order, the same keys."""
    if len(metas) != len(run.plan):
        raise EpisodeDataError(f"{path} has {len(metas)} episodes; run.json plans {len(run.plan)}. {_ADVICE}")
    for ticket, (meta, key) in enumerate(zip(metas, run.plan, strict=True)):
        if meta.ticket != ticket:
            raise EpisodeDataError(f"{path} row {ticket} is episode {meta.ticket}. {_ADVICE}")
        if (meta.seed, meta.task, meta.episode, meta.condition) != (*key.parts, key.condition):
            raise EpisodeDataError(
                f"{path} row {ticket} is {meta.task} seed {meta.seed} number {meta.episode} under {meta.condition}; "
                f"run.json plans {key.task} seed {key.seed} number {key.episode} under {key.condition}. {_ADVICE}"
            )


def with_steps(metas: Sequence[EpisodeMeta]) -> list[EpisodeMeta]:
    """The episodes that have rows, in order; LeRobot numbers them 0, 1, ... and knows nothing of the others.

    (LeRobot does not open a data set in which a listed episode has no row.)
    """
    return [meta for meta in metas if meta.length]


def index_fits(path: Path, frame: pd.DataFrame, metas: Sequence[EpisodeMeta]) -> pd.DataFrame:
    """LeRobot's table of episodes against ours: as many, in order, the same lengths, rows without gaps.

    Returns the table indexed by our tickets.
    """
    missing = [name for name in ("episode_index", *INDEX_COLUMNS) if name not in frame]
    if missing:
        raise EpisodeDataError(f"{path} has no column {missing[0]}. {_ADVICE}")
    recorded, start = with_steps(metas), 0
    if frame["episode_index"].tolist() != list(range(len(recorded))):
        raise EpisodeDataError(f"{path} lists {len(frame)} episodes, not 0 to {len(recorded) - 1} in order. {_ADVICE}")
    for meta, row in zip(recorded, frame[list(INDEX_COLUMNS)].to_numpy().tolist(), strict=True):
        if row[:3] != [start, start + meta.length, meta.length]:
            raise EpisodeDataError(
                f"{path} puts episode {meta.ticket} at rows {row[0]} to {row[1]} ({row[2]} steps); episodes.parquet says "
                f"{meta.length} steps from row {start}. {_ADVICE}"
            )
        start += meta.length
    return frame.set_index(pd.Index([meta.ticket for meta in recorded]))


def columns_fit(path: Path, table: pa.Table, run: RunMeta) -> None:
    """Widths of the columns against the specs and shapes in `run.json`."""
    widths = {"signal": len(run.signals)} if run.signals else {}
    if run.has_actions:
        states = {"observation.state": len(run.observation_spec.state)} if run.observation_spec.state else {}
        widths |= states | {"action": len(run.action_spec.dimensions)}
        widths |= {"policy.cursor": 1, "policy.replan": 1, "policy.chunk": prod(run.shapes.get("policy.chunk", (0,)))}
    for name in ("index", "episode_index", "frame_index", *widths):
        if name not in table.column_names:
            raise EpisodeDataError(f"{path} has no column {name}. {_ADVICE}")
    present = {name: prod(shape) for name, shape in run.shapes.items() if name in table.column_names}
    for name, width in (widths | present).items():
        column = table.column(name)
        nested = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
        found = pc.unique(pc.list_value_length(column)).to_pylist() if nested else [None] if column.null_count else [1]
        if found not in ([width], []) or _kind(column.type) not in _KINDS:
            raise EpisodeDataError(
                f"{path} has {column.type} with {found[:3]} numbers in {name}; run.json says {width}. {_ADVICE}"
            )


def _kind(column: pa.DataType) -> str:
    return str(getattr(column, "value_type", column))


def rows_fit(path: Path, part: pa.Table, meta: EpisodeMeta, place: pd.Series) -> None:
    """The rows of an episode against the tables: as many, its own, in order; `place` is its row of LeRobot's table."""
    if part.num_rows != meta.length:
        raise EpisodeDataError(
            f"Episode {meta.ticket} should have {meta.length} steps but {path} has {part.num_rows} of it; the file was "
            "truncated. Restore it from a copy, or collect the run again."
        )
    steps = np.arange(meta.length)
    for name, expected in (
        ("index", steps + int(place["dataset_from_index"])),
        ("frame_index", steps),
        ("episode_index", np.full(meta.length, int(place["episode_index"]))),
    ):
        found = part.column(name).to_numpy()
        if not np.array_equal(found, expected):
            at = int(np.argmax(found != expected))
            raise EpisodeDataError(
                f"{path}: step {at} of episode {meta.ticket} has {name} {found[at]}, not {expected[at]}. {_ADVICE}"
            )
