"""`failsight import`: other systems' logs -> a labelled run that fit, evaluate and report treat like our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from failsight.core.errors import UnknownNameError
from failsight.core.registry import load
from failsight.episodes.logged import LogOrigin, store_log
from failsight.episodes.run import Run
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.table import label_run

FORMATS = {"actprobe": "failsight.episodes.actprobe:read_actprobe"}
"""Format -> reader."""


def import_log(
    format_name: str, source: Path, out: Path, origin: LogOrigin, tick: Callable[[], None] | None = None
) -> Run:
    """Read the log files at `source` and store them as a labelled run at `out`.

    Raises UnknownNameError for a format nobody reads, EpisodeDataError for files that are not what they should be.
    """
    if format_name not in FORMATS:
        raise UnknownNameError("log format", format_name, FORMATS)
    files = load("failsight.episodes.actprobe:log_files")(source)
    store_log(load(FORMATS[format_name])(files), out, origin, tick)
    run = Run(out)
    label_run(run, OutcomeLabeler())
    return run
