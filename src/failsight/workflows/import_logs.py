"""`failsight import`: other systems' logs -> a labelled run that fit, evaluate and report treat like our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from failsight.core.staging import require_free, staged_folder
from failsight.episodes.formats import LOGS
from failsight.episodes.formats.format import ReadOptions, Recognised, recognise
from failsight.episodes.logged import Log, LogOrigin, write_log
from failsight.episodes.run import Run
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.table import label_run

_ADVICE = "Say how an episode is stored with --map success=ok,episode=ep,task=job,step=tick,signals=entropy+var."


class FoundLog(NamedTuple):
    """A log, and how it was recognised."""

    log: Log
    found: str
    """What was found, in one line."""


def read_log(source: Path, format: str = "", options: ReadOptions | None = None) -> FoundLog:
    """The log at `source` in the format it is recognised to be in; `format` forces one.

    Raises UnknownNameError for a format nobody reads, EpisodeDataError for files that are not what they should be.
    """
    chosen: Recognised[Log] = recognise(source, LOGS, "log that is recognised", format, _ADVICE)
    log = chosen.format.read(source, options or ReadOptions())
    return FoundLog(log, f"{chosen.found}, {contents(log)}")


def contents(log: Log) -> str:
    """What a log holds, in numbers."""
    failed, first = sum(not e.success for e in log.episodes), log.episodes[0]
    parts = [f"{len(log.episodes)} episodes", f"{failed} failed", f"{len(log.columns)} signals"]
    if first.hidden is not None:
        parts.append(f"hidden states of {first.hidden.shape[1]}")
    return ", ".join(parts)


def store_labelled(log: Log, out: Path, origin: LogOrigin, tick: Callable[[], None] | None = None) -> Run:
    """The log as a labelled run at `out`, whole or not at all.

    Raises EpisodeDataError when its episodes do not fit together, StorageError when `out` exists or cannot be written.
    """
    with staged_folder(out) as build:
        write_log(log, build, origin, tick)
        label_run(Run(build), OutcomeLabeler())
    return Run(out)


def import_log(
    source: Path,
    out: Path,
    origin: LogOrigin,
    tick: Callable[[], None] | None = None,
    note: Callable[[str], None] | None = None,
    format: str = "",
    options: ReadOptions | None = None,
) -> Run:
    """Read the log files at `source` and store them as a labelled run; `note` hears what was found and assumed.

    Raises what `read_log` and `store_labelled` raise.
    """
    require_free(out)
    log, found = read_log(source, format, options)
    if note is not None:
        for line in (found, *log.notes):
            note(line)
    return store_labelled(log, out, origin, tick)
