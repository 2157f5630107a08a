"""SAFE's rollouts of OpenVLA: `task3--ep7--succ0.csv` with a row per step, and a `.pkl` of the same name beside it.

As read by `failure_prob/data/openvla.py` of vla-safe/SAFE (read, not run): the CSV has `action/dx` ... `action/dgripper` and
uncertainties per step (`action/token_0_prob`, `action/total_var`, ...), which are the signals here; the pickle has
`hidden_states` (T, tokens, D), of which the mean over tokens is kept, and `task_description`. A CSV without pickle counts too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_array, read_success
from failsight.episodes.formats.csv_rows import SAFE_NAME, column_names, read_columns
from failsight.episodes.formats.fields import Fields
from failsight.episodes.formats.format import Format, LogFormat, ReadOptions, named_like
from failsight.episodes.formats.mapped import log_of, with_note
from failsight.episodes.formats.rows import Sheet
from failsight.episodes.logged import Log
from failsight.storage.pickles import read_pickles

_ENTRIES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "dgripper")
ACTION = tuple(f"action/{name}" for name in _ENTRIES)
_NAMES = tuple(name.replace("dgripper", "gripper") for name in _ENTRIES)
_KEEP = ("hidden_states", "task_description", "episode_success")


def _files(path: Path) -> list[Path]:
    return [file for file in named_like(path, (".csv",)) if SAFE_NAME.fullmatch(file.name)]


def _sniff(path: Path) -> str:
    files = _files(path)
    with_pickle = sum(file.with_suffix(".pkl").is_file() for file in files)
    return f"{len(files)} CSV files of SAFE, {with_pickle} with hidden states beside them" if files else ""


def _read(path: Path, options: ReadOptions) -> Log:
    options.refuse_fields("safe")
    files = _files(path)
    if not files:
        raise EpisodeDataError(f"{path} holds no file called like task3--ep7--succ0.csv.")
    pickled = [file for file in files if file.with_suffix(".pkl").is_file()]
    if pickled and len(pickled) < len(files):
        lacking = next(file for file in files if file not in pickled)
        raise EpisodeDataError(f"{lacking} has no .pkl beside it, others have; import them apart.")
    header = column_names(files[0])
    missing = [name for name in ACTION if name not in header]
    if missing:
        raise EpisodeDataError(f"{files[0]} has no {', '.join(missing)}; it is not SAFE's.")
    signals = tuple(name for name in header if name.startswith("action/") and name not in ACTION)
    names = {role: (role,) for role in ("success", "episode", "task", *(("instruction", "hidden") if pickled else ()))}
    fields = Fields(names={**names, "action": _NAMES, "signals": signals}, assumed=False)
    log = log_of(_sheets(files, signals, bool(pickled)), fields, path)
    return with_note(log, "hidden states are the mean over tokens") if pickled else log


def _sheets(files: Sequence[Path], signals: tuple[str, ...], pickled: bool) -> Iterator[tuple[Path, Sheet]]:
    wanted = Fields(names={"action": ACTION, "signals": signals}, assumed=False)
    besides = read_pickles([file.with_suffix(".pkl") for file in files], _KEEP) if pickled else None
    for file in files:
        told = SAFE_NAME.fullmatch(file.name)
        assert told is not None
        columns = read_columns(file, wanted)
        values: dict[str, Any] = {**told.groupdict(), **{name: columns[name] for name in signals}}
        values |= {name: columns[column] for name, column in zip(_NAMES, ACTION, strict=True)}
        if besides is not None:
            values |= _beside(*next(besides), values)
        yield file, Sheet(str(file), values)


def _beside(file: Path, record: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(record, dict) or "hidden_states" not in record:
        raise EpisodeDataError(f"{file} holds no hidden_states.")
    told = record.get("episode_success", values["success"])
    if read_success(told, f"{file}: episode_success") != read_success(values["success"], str(file)):
        raise EpisodeDataError(f"{file} says another outcome than its name.")
    hidden = np.asarray(record["hidden_states"])
    if hidden.ndim == 3:
        hidden = read_array(hidden, f"{file}: hidden_states", (None, None, None), finite=False).mean(axis=1)
    return {"hidden": hidden, "instruction": record.get("task_description")}


FORMAT: LogFormat = Format(name="safe", sniff=_sniff, read=_read)
