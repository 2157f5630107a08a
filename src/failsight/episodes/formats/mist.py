"""MIST's rollouts: `success_rollouts.pkl` and `failure_rollouts.pkl`, lists of episodes of OpenVLA in LIBERO.

As written by `collect_failure_data_oft_eval.py` of AnikS22/mist-vla (read, not run): per episode `actions`, `features`
(hidden states before the action), `robot_states` (mappings, after the action), `success`, `instruction`, `task_id`. A
state is therefore that of the step before; the first step has none and is left out. Collision flags come from the
simulator's contacts and are no signal. Rewards are none either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_array, read_success
from failsight.core.types import Array
from failsight.episodes.formats.fields import Fields
from failsight.episodes.formats.format import Format, LogFormat, ReadOptions
from failsight.episodes.formats.mapped import log_of, with_note
from failsight.episodes.formats.rows import Sheet
from failsight.episodes.logged import Log
from failsight.storage.pickles import read_pickles

FILES = {"success_rollouts.pkl": True, "failure_rollouts.pkl": False}
ACTION = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
_PLACE = {"eef_pos": ("x_m", "y_m", "z_m"), "eef_quat": ("quat_w", "quat_x", "quat_y", "quat_z")}
_KEEP = ("actions", "features", "hidden_states", "robot_states", "success", "instruction", "task_id", *_PLACE)
_NOTE = "states are those after the action before; the first step of each episode, which has none, is left out"


def _files(path: Path) -> list[Path]:
    return [path / name for name in FILES if (path / name).is_file()]


def _sniff(path: Path) -> str:
    names = [file.name for file in _files(path)]
    return f"MIST's {' and '.join(names)}" if names else ""


def _read(path: Path, options: ReadOptions) -> Log:
    options.refuse_fields("mist")
    files = _files(path)
    if not files:
        raise EpisodeDataError(f"{path} holds neither {' nor '.join(FILES)}.")
    sheets = [(file, sheet) for file, records in read_pickles(files, _KEEP) for sheet in _sheets(file, records)]
    if not sheets:
        raise EpisodeDataError(f"{path} holds no episode.")
    first = sheets[0][1].values
    names = {role: (role,) for role in ("success", "task", "instruction", "hidden") if role in first}
    states = tuple(name for part in _PLACE.values() for name in part if name in first)
    fields = Fields(names=names | {"action": ACTION, "state": states}, assumed=False)
    return with_note(log_of(sheets, fields, path), _NOTE)


def _sheets(file: Path, records: Any) -> Iterator[Sheet]:
    if not isinstance(records, list):
        raise EpisodeDataError(f"{file} holds a {type(records).__name__}; a list of episodes is wanted.")
    for i, record in enumerate(records):
        where = f"{file}[{i}]"
        if not isinstance(record, dict) or "actions" not in record:
            raise EpisodeDataError(f"{where} is no episode with actions.")
        success = read_success(record.get("success", FILES[file.name]), where)
        if success != FILES[file.name]:
            raise EpisodeDataError(f"{where} says {'success' if success else 'failure'} and lies in {file.name}.")
        yield Sheet(where, {"success": success, **_values(record, where)})


def _values(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    actions = _stacked(record["actions"], f"{where}: actions")
    if actions.shape[1] != len(ACTION):
        raise EpisodeDataError(f"{where}: actions have {actions.shape[1]} entries; {', '.join(ACTION)} are wanted.")
    states = _states(record.get("robot_states"), where)
    skipped = 1 if states else 0
    values: dict[str, Any] = {name: actions[skipped:, i] for i, name in enumerate(ACTION)}
    values |= {name: column[: len(column) - 1] for name, column in states.items()}
    hidden = record.get("features", record.get("hidden_states"))
    if hidden is not None and len(hidden):
        values["hidden"] = _stacked(hidden, f"{where}: hidden states", finite=False)[skipped:]
    if "task_id" in record:
        values["task"] = f"task_{record['task_id']}"
    return values | ({"instruction": record["instruction"]} if record.get("instruction") else {})


def _states(states: Any, where: str) -> dict[str, Array]:
    """Name -> (T,) of what every step has, after its action."""
    if not isinstance(states, list) or not states or not all(isinstance(state, dict) for state in states):
        return {}
    found: dict[str, Array] = {}
    for key, names in _PLACE.items():
        if all(key in state for state in states):
            column = _stacked([state[key] for state in states], f"{where}: {key}")
            if column.shape[1] != len(names):
                raise EpisodeDataError(f"{where}: {key} has {column.shape[1]} entries; {len(names)} are wanted.")
            found |= {name: column[:, i] for i, name in enumerate(names)}
    return found


def _stacked(values: Any, where: str, *, finite: bool = True) -> Array:
    """(T, D) of a list of T vectors, or of an array."""
    try:
        rows = [np.asarray(value, np.float64) for value in values]
        return read_array(np.stack(rows), where, (None, None), finite=finite)
    except (ValueError, TypeError) as error:
        raise EpisodeDataError(f"{where}: the steps differ in size or are no numbers.") from error


FORMAT: LogFormat = Format(name="mist", sniff=_sniff, read=_read)
