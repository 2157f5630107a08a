"""`failsight import`: other systems' logs -> a labelled run that fit, evaluate and report treat like our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ObservationSpec, no_actions
from failsight.core.staging import require_free, staged_folder
from failsight.episodes.formats import LOG_GROUP, LOGS
from failsight.episodes.formats.format import ReadOptions, Recognised, recognise
from failsight.episodes.logged import Log, LogOrigin, steps_of, write_log
from failsight.episodes.run import Run
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.table import label_run
from failsight.signals.bank import bank_columns, replay_signals

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
    chosen: Recognised[Log] = recognise(source, LOGS, "log that is recognised", format, _ADVICE, LOG_GROUP)
    log = chosen.format.read(source, options or ReadOptions())
    return FoundLog(log, f"{chosen.found}, {contents(log)}")


def with_our_signals(log: Log, rate_hz: float) -> Log:
    """A log that has signals and actions gets ours beside its own; one that has actions alone is judged by ours anyway."""
    if not log.columns or not log.actions:
        return log
    spec = replace(no_actions(rate_hz), dimensions=log.actions)
    observations = ObservationSpec(state=log.states, cameras=())
    try:
        known = bank_columns(spec, observations)
    except SpecMismatchError as error:
        return replace(log, notes=(*log.notes, f"our own signals are left out: {error}"))
    ours = [replay_signals(steps_of(e, log), spec, observations) for e in log.episodes]
    taken = {column.name for column in log.columns}
    columns = tuple(replace(c, name=f"ours.{c.name}" if c.name in taken else c.name) for c in known)
    joined = [np.concatenate([e.signals, more], axis=1) for e, more in zip(log.episodes, ours, strict=True)]
    episodes = tuple(replace(e, signals=signals) for e, signals in zip(log.episodes, joined, strict=True))
    return replace(log, columns=log.columns + columns, episodes=episodes)


def contents(log: Log) -> str:
    """What a log holds, in numbers."""
    failed, first = sum(not e.success for e in log.episodes), log.episodes[0]
    parts = [f"{len(log.episodes)} episodes", f"{failed} failed"]
    for count, what in ((len(log.columns), "signals"), (len(log.actions), "actions"), (len(log.states), "states")):
        parts += [f"{count} {what}"] if count else []
    if first.hidden is not None:
        parts.append(f"hidden states of {first.hidden.shape[1]}")
    return ", ".join(parts)


def store_labelled(log: Log, out: Path, origin: LogOrigin, tick: Callable[[], None] | None = None) -> Run:
    """The log as a labelled run at `out`, whole or not at all.

    Raises EpisodeDataError when its episodes do not fit together, StorageError when `out` exists or cannot be written.
    """
    with staged_folder(out) as build:
        write_log(with_our_signals(log, origin.rate_hz), build, origin, tick)
        label_run(Run(build), OutcomeLabeler())
    return Run(out)


def import_log(
    format: str,
    source: Path,
    out: Path,
    origin: LogOrigin,
    tick: Callable[[], None] | None = None,
    note: Callable[[str], None] | None = None,
    options: ReadOptions | None = None,
) -> Run:
    """Read the log files at `source` and store them as a labelled run; `note` hears what was found and assumed.

    `format`: its name, or "" for the one it is recognised to be in. Raises what `read_log` and `store_labelled` raise.
    """
    require_free(out)
    log, found = read_log(source, format, options)
    if note is not None:
        for line in (found, *log.notes):
            note(line)
    return store_labelled(log, out, origin, tick)
