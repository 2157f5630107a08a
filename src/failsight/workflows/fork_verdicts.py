"""Verdicts, decisions and guard events of forks: `<name>_verdicts/episode-NNNNNN.parquet`, every arm of one episode.

The columns are those of `episodes.verdicts`, and `arm`; an arm's rows begin with those it shares with doing nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from failsight.episodes.verdicts import Judge, verdict_table
from failsight.storage.parquet import read_table, write_table
from failsight.workflows.forks import ForkRecord

_COUNTED = ("blind", "held", "clipped", "latched")


def keep_verdicts(folder: Path, ticket: int, record: ForkRecord, judge: Judge) -> None:
    """Write the rows of one fork record. Raises StorageError when the disk refuses."""
    tables = [
        verdict_table(ticket, rows, judge).append_column("arm", pa.array([arm] * len(rows), pa.string()))
        for arm, rows in record.rows.items()
    ]
    write_table(folder / f"episode-{ticket:06d}.parquet", pa.concat_tables(tables))


def fork_verdicts(folder: Path) -> pd.DataFrame:
    """All rows of all episodes; without rows where nothing was kept."""
    tables = [read_table(path).to_pandas() for path in sorted(folder.glob("episode-*.parquet"))]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"arm": []})


def guard_counts(folder: Path) -> dict[str, dict[str, int]]:
    """Per arm: ticks, blind ones, and those at which the guard held, clipped or latched."""
    frame = fork_verdicts(folder)
    return {str(arm): _counts(part) for arm, part in frame.groupby("arm")}


def _counts(part: Any) -> dict[str, int]:
    marks = {name: part["guard"].str.contains(name) for name in _COUNTED[1:]} | {"blind": part["blind"] != ""}
    return {"ticks": len(part), **{name: int(marks[name].sum()) for name in _COUNTED}}
