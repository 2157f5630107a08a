"""What was judged, decided and guarded at each step: `verdicts/<bundle>.parquet`, one row per tick.

Online: a loop tells `EpisodeRecorder(..., judge=Judge(...))` of every tick; its rows (`row_of`) are kept in memory,
written when the episode is committed (in the same atomic rename), and joined into one table per bundle when the run is
sealed. Offline: `write_verdicts(run_folder, judge, rows)` for a run that was judged afterwards. `read_verdicts` gives
the tables back. Derived: they can be deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from failsight.core.errors import EpisodeDataError
from failsight.core.types import CONTINUE, SILENT, Tick
from failsight.storage.derived import read_derived, write_derived

UNMONITORED = "unmonitored"
"""Name of the table of episodes that ran without a bundle: their guard events and decisions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Who judged, and whom."""

    bundle: str = ""
    """Fingerprint of the bundle; empty: no monitor was running."""
    policy: str = ""
    """Fingerprint of the policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """One tick. Numbers are NaN where nothing could be said; `blind` then says why."""

    step: int
    time_s: float
    """Seconds since the episode began."""
    p_fail: float = float("nan")
    threshold: float = float("nan")
    margin: float = float("nan")
    """Trigger statistic minus threshold."""
    trigger: bool = False
    why: str = ""
    """The monitor's reason for the trigger."""
    blind: str = ""
    """Why the monitor cannot judge; empty when it can."""
    decision: str = "continue"
    """`DecisionKind` value of what was decided."""
    reason: str = ""
    """The intervention's reason for the decision."""
    guard: str = ""
    """What the guard did: a bad action replaced, a clip, a latch and by whom; empty: nothing."""
    instruction: str = ""
    """What the decision told the policy in the middle of the episode; empty: nothing."""


def row_of(tick: Tick) -> VerdictRow | None:
    """A tick as a row; None where nobody judged or decided and the guard did nothing."""
    verdict, decision = tick.verdict or SILENT, tick.decision or CONTINUE
    if verdict is SILENT and decision is CONTINUE and not tick.guard:
        return None
    return VerdictRow(
        step=tick.index,
        time_s=tick.time_s,
        p_fail=verdict.risk.p_fail,
        threshold=verdict.threshold,
        margin=verdict.margin,
        trigger=verdict.trigger,
        why=verdict.why,
        blind=verdict.blind,
        decision=str(decision.kind),
        reason=decision.reason,
        guard=tick.guard,
        instruction=decision.instruction,
    )


SCHEMA = pa.schema(
    [
        ("ticket", pa.int64()),
        ("step", pa.int64()),
        *((name, pa.float64()) for name in ("time_s", "p_fail", "threshold", "margin")),
        ("trigger", pa.bool_()),
        *((name, pa.string()) for name in ("why", "blind", "decision", "reason", "guard", "instruction")),
    ]
)
_LATER = "instruction"
"""Column that tables of earlier versions lack: nobody told a policy anything then."""


def verdict_table(ticket: int, rows: Sequence[VerdictRow], judge: Judge) -> pa.Table:
    """Rows of one episode as a table whose metadata names the judge."""
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names[1:]}
    table = pa.table({"ticket": [ticket] * len(rows), **columns}, schema=SCHEMA)
    return table.replace_schema_metadata(asdict(judge))


def write_verdicts(root: Path, judge: Judge, rows: Mapping[int, Sequence[VerdictRow]]) -> Path:
    """Write (or replace) one judge's verdicts of a run, episodes by ticket; returns the file.

    Raises StorageError when the disk refuses.
    """
    return store_verdicts(root, [verdict_table(ticket, some, judge) for ticket, some in sorted(rows.items())])


def store_verdicts(root: Path, tables: Sequence[pa.Table]) -> Path:
    """Join tables of one judge into `root/verdicts/<bundle>.parquet`."""
    joined = pa.concat_tables([_whole(table) for table in tables])
    path = root / "verdicts" / f"{_file_name(judge_of(joined).bundle)}.parquet"
    write_derived(root, path, joined)
    return path


def judge_of(table: pa.Table) -> Judge:
    """The judge a table names."""
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    return Judge(bundle=metadata.get("bundle", ""), policy=metadata.get("policy", ""))


def read_verdicts(root: Path) -> dict[Judge, pd.DataFrame]:
    """Every table of a run, columns as in `SCHEMA`; empty when nothing was judged.

    Raises EpisodeDataError naming the file that is damaged or no table of verdicts.
    """
    found: dict[Judge, pd.DataFrame] = {}
    for path in sorted((root / "verdicts").glob("[!.]*.parquet")):
        table = _whole(read_derived(root, path))
        if table.schema.names != SCHEMA.names:
            raise EpisodeDataError(f"{path} has other columns than verdicts have; delete it or judge the run again.")
        found[judge_of(table)] = table.to_pandas()
    return found


def _whole(table: pa.Table) -> pa.Table:
    if table.schema.names != [name for name in SCHEMA.names if name != _LATER]:
        return table
    return table.append_column(SCHEMA.field(_LATER), pa.array([""] * len(table), pa.string()))


def changes_of(frames: Mapping[Judge, pd.DataFrame]) -> dict[int, tuple[tuple[int, str], ...]]:
    """What policies were told in the middle of an episode, by ticket: the step it holds from, and the words, in order.

    A policy is told at one step and plans by it from the next one on; the same words twice in a row are one change.
    """
    found: dict[int, dict[int, str]] = {}
    for frame in frames.values():
        said = frame[frame["instruction"] != ""]
        for ticket, step, text in zip(said["ticket"], said["step"], said["instruction"], strict=True):
            found.setdefault(int(ticket), {})[int(step) + 1] = str(text)
    return {ticket: tuple(_distinct(sorted(said.items()))) for ticket, said in found.items()}


def _distinct(said: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    return (change for i, change in enumerate(said) if i == 0 or change[1] != said[i - 1][1])


def count_alarms(frames: Mapping[Judge, pd.DataFrame]) -> dict[int, int]:
    """Alarms by ticket: how often a trigger went on (ticks in a row are one alarm), over all judges."""
    counts: dict[int, int] = {}
    for frame in frames.values():
        for ticket, part in frame.groupby("ticket"):
            on = part["trigger"].to_numpy(bool)
            counts[int(str(ticket))] = counts.get(int(str(ticket)), 0) + int(
                np.count_nonzero(np.diff(on, prepend=False) & on)
            )
    return counts


def alarm_steps(frames: Mapping[Judge, pd.DataFrame]) -> dict[int, set[int]]:
    """Steps with the trigger on, by ticket, over all judges."""
    steps: dict[int, set[int]] = {}
    for frame in frames.values():
        on = frame[frame["trigger"]]
        for ticket, step in zip(on["ticket"], on["step"], strict=True):
            steps.setdefault(int(ticket), set()).add(int(step))
    return steps


def _file_name(bundle: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", bundle)[:64] or UNMONITORED
