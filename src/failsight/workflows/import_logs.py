"""`failsight import`: other systems' logs -> a labelled run that fit, evaluate and report treat like our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from failsight.core.errors import UnknownNameError
from failsight.core.registry import load
from failsight.core.staging import require_free, staged_folder
from failsight.episodes.logged import Log, LogOrigin, write_log
from failsight.episodes.run import Run
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.table import label_run

FORMATS = {"actprobe": "failsight.episodes.formats.actprobe:read_actprobe"}
"""Format -> reader."""


def read_log(format_name: str, source: Path) -> Log:
    """The log files at `source`.

    Raises UnknownNameError for a format nobody reads, EpisodeDataError for files that are not what they should be.
    """
    if format_name not in FORMATS:
        raise UnknownNameError("log format", format_name, FORMATS)
    log: Log = load(FORMATS[format_name])(load("failsight.episodes.formats.actprobe:log_files")(source))
    return log


def store_labelled(log: Log, out: Path, origin: LogOrigin, tick: Callable[[], None] | None = None) -> Run:
    """The log as a labelled run at `out`, whole or not at all.

    Raises EpisodeDataError when its episodes do not fit together, StorageError when `out` exists or cannot be written.
    """
    with staged_folder(out) as build:
        write_log(log, build, origin, tick)
        label_run(Run(build), OutcomeLabeler())
    return Run(out)


def import_log(
    format_name: str,
    source: Path,
    out: Path,
    origin: LogOrigin,
    tick: Callable[[], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> Run:
    """Read the log files at `source` and store them as a labelled run; `note` hears what had to be assumed.

    Raises what `read_log` and `store_labelled` raise.
    """
    require_free(out)
    log = read_log(format_name, source)
    if note is not None:
        for line in log.notes:
            note(line)
    return store_labelled(log, out, origin, tick)
