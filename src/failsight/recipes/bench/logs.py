"""The logs behind `failsight run bench-real`: where they are, what they are, and their import into the comparison's folder.

A log is recognised as one of ActProbe's release by what is in it, never by the name of its folder; any other is named
as it is found. One folder that cannot be read does not end the comparison.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from failsight.core.errors import EpisodeDataError, FailsightError, StorageError
from failsight.episodes.formats import LOG_GROUP, LOGS
from failsight.episodes.formats.format import Recognised, UnrecognisedError, recognise
from failsight.episodes.logged import Log, LogOrigin
from failsight.episodes.meta import write_text_atomic
from failsight.episodes.run import Run
from failsight.evaluation.provenance import versions
from failsight.workflows.import_logs import read_log, store_labelled

PLACES = ("data/vla_rollouts", "../shared/data/vla_rollouts")
"""Where the logs are looked for when neither --data nor FAILSIGHT_DATA says."""
ORIGINS = {
    "pi0_libero": LogOrigin(policy="pi0", suite="LIBERO-10", horizon=104, rate_hz=4.0),
    "pi05_robocasa": LogOrigin(policy="pi0.5", suite="RoboCasa"),
    "groot_robocasa": LogOrigin(policy="GR00T", suite="RoboCasa"),
}
"""The logs released with ActProbe. LIBERO-10: 520 control steps at 20 Hz, one inference every 5."""
_LIBERO_10 = "8cc654477d32ca32"
"""Digest of the ten instructions of LIBERO-10."""
_ROBOCASA = frozenset(
    {
        *("PnPCounterToCab", "PnPCabToCounter", "PnPCounterToSink", "PnPSinkToCounter", "PnPCounterToStove"),
        *("PnPStoveToCounter", "PnPCounterToMicrowave", "PnPMicrowaveToCounter", "OpenSingleDoor", "CloseSingleDoor"),
        *("OpenDoubleDoor", "CloseDoubleDoor", "OpenDrawer", "CloseDrawer", "TurnOnStove", "TurnOffStove"),
        *("TurnOnSinkFaucet", "TurnOffSinkFaucet", "TurnSinkSpout", "TurnOnMicrowave", "TurnOffMicrowave"),
        *("CoffeePressButton", "CoffeeServeMug", "CoffeeSetupMug"),
    }
)
"""Its 24 atomic tasks."""


def released_as(log: Log) -> str:
    """Name of the released log that this is, wholly or in part; empty for any other."""
    names = {column.name for column in log.columns}
    tasks, hidden = {e.task for e in log.episodes}, log.episodes[0].hidden
    if hidden is not None:
        return "pi05_robocasa" if hidden.shape[1] == 1024 and "chunk_mse_mmd" in names and tasks <= _ROBOCASA else ""
    if "is_replan" in names and {t.removesuffix("_PandaOmron_Env") for t in tasks} <= _ROBOCASA:
        return "groot_robocasa"
    texts = hashlib.blake2b("\n".join(sorted({e.instruction for e in log.episodes})).encode(), digest_size=8)
    return "pi0_libero" if texts.hexdigest() == _LIBERO_10 and "chunk_mse_mmd" in names else ""


def find_data(given: Path | None) -> Path:
    """The folder of logs. Raises EpisodeDataError saying where it was looked for."""
    places = [given] if given else [Path(p) for p in (os.environ.get("FAILSIGHT_DATA"), *PLACES) if p]
    for place in places:
        if place.is_dir() and log_folders(place):
            return place
    raise EpisodeDataError(
        f"No logs found in {', '.join(str(p) for p in places)}; expected one folder per policy with ActProbe files. "
        "Say where they are with --data FOLDER."
    )


def log_folders(place: Path) -> list[Path]:
    """Subfolders that hold log files, or that cannot be looked into (which their import will say)."""
    try:
        return sorted(p for p in place.iterdir() if p.is_dir() and _holds_logs(p))
    except OSError as error:
        raise EpisodeDataError(f"Cannot list {place} ({error.strerror}).") from error


def _holds_logs(folder: Path) -> bool:
    try:
        found: Recognised[Log] = recognise(folder, LOGS, "log", group=LOG_GROUP)
        return bool(found)
    except UnrecognisedError:
        return False
    except EpisodeDataError:
        return True


def _files(folder: Path) -> list[Path]:
    """Everything a log consists of; hidden files are nobody's."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


class Imported(NamedTuple):
    """What came of a folder of logs."""

    names: tuple[str, ...]
    """Logs that can be read."""
    left_out: dict[str, str]
    """The others -> why."""


def import_logs(place: Path, folder: Path, note: Callable[[str], None]) -> Imported:
    """Import every log once into `folder/data`; a log whose files changed, or all when the code did, start over.

    Raises EpisodeDataError when not one log can be read, StorageError when `folder` holds data that is not ours.
    """
    names, left_out, stamps = [], {}, _stamps(folder)
    for log in log_folders(place):
        try:
            stamp = _digest(log)
            if stamps.get(log.name) != stamp:
                for old in ("data", "scores"):
                    shutil.rmtree(folder / old / log.name, ignore_errors=True)
            stamps[log.name] = stamp
            _write_stamps(folder, stamps)
            if not (folder / "data" / log.name).is_dir():
                _import(log, folder / "data" / log.name, note)
            names.append(log.name)
        except StorageError:
            raise
        except FailsightError as error:
            left_out[log.name] = str(error)
            note(f"{log.name} is left out: {error}")
    if not names:
        raise EpisodeDataError(f"No log in {place} can be read. {next(iter(left_out.values()))}")
    return Imported(tuple(names), left_out)


def _import(source: Path, out: Path, note: Callable[[str], None]) -> None:
    log = read_log(source).log
    origin = ORIGINS.get(released_as(log), LogOrigin(policy=source.name, suite=source.name))
    run = store_labelled(log, out, origin)
    note(f"{source.name}: {len(run.episodes)} episodes")
    for line in log.notes:
        note(f"{source.name}: {line}")


def _digest(log: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for file in _files(log):
        try:
            digest.update(f"{file.name} {file.stat().st_size} ".encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "blake2b").digest())
        except OSError as error:
            raise EpisodeDataError(f"Cannot read {file} ({error.strerror}).") from error
    return digest.hexdigest()


def _stamps(folder: Path) -> dict[str, str]:
    """Log -> digest of the files it was imported from, by the code as it is; what other code made is removed."""
    mark = folder / "bench.json"
    try:
        known: Mapping[str, Any] = json.loads(mark.read_text())
        ours = isinstance(known, dict) and "versions" in known and "logs" in known
    except (OSError, ValueError):
        ours = False
    stale = [folder / old for old in ("data", "scores") if (folder / old).exists()]
    if not ours and stale:
        raise StorageError(f"{stale[0]} is not of a comparison (there is no {mark}); choose another --out.")
    if not ours or known["versions"] != versions() or not isinstance(known["logs"], dict):
        for old in stale:
            shutil.rmtree(old, ignore_errors=True)
        return {}
    return dict(known["logs"])


def _write_stamps(folder: Path, stamps: Mapping[str, str]) -> None:
    write_text_atomic(folder / "bench.json", json.dumps({"logs": stamps, "versions": versions()}, sort_keys=True))


def who(folder: Path, name: str) -> dict[str, str]:
    """What a caption says about an imported log: policy and suite as recognised or given, and which released log it is."""
    meta = Run(folder / "data" / name).meta
    same = (key for key, origin in ORIGINS.items() if (origin.policy, origin.suite) == (meta.policy, meta.sim))
    return {"policy": meta.policy, "suite": meta.sim, "release": next(same, "")}
