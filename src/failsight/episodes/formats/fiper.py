"""FIPER's rollouts: one pickle per episode in `calibration/` and `test/`, its outcome in its name (`_s_`, `_f_`).

As read by `tasks/task_manager.py` of a fork of utiasDSL/fiper (read, not run): a mapping of `metadata` and `rollout`, or
a list whose first entry is the metadata; a step is one inference with `obs_embedding`, `action` (executed),
`action_pred` (samples, horizon, action), `agent_pos`. Samples count where the executed actions are found in one of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_array, read_success
from failsight.core.types import Array
from failsight.episodes.formats.fields import Fields
from failsight.episodes.formats.format import Format, LogFormat, ReadOptions, named_like
from failsight.episodes.formats.mapped import log_of, with_note
from failsight.episodes.formats.rows import Sheet
from failsight.episodes.logged import Log
from failsight.storage.pickles import read_pickles

_FOLDERS = ("calibration", "test")
_OUTCOME = re.compile(r"(?:^|_)([sf])(?:_|$)")
_STEP = ("obs_embedding", "action", "action_pred", "agent_pos")
_KEEP = ("metadata", "rollout", "successful", *_STEP)


def _files(path: Path) -> list[Path]:
    root = path / "rollouts" if (path / "rollouts").is_dir() else path
    folders = [root / name for name in _FOLDERS if (root / name).is_dir()]
    return [file for folder in folders for file in named_like(folder, (".pkl",))]


def _sniff(path: Path) -> str:
    files = _files(path)
    return f"{len(files)} pickles in FIPER's folders" if files else ""


def _read(path: Path, options: ReadOptions) -> Log:
    options.refuse_fields("fiper")
    files = _files(path)
    if not files:
        raise EpisodeDataError(f"{path} holds no pickle in {' or '.join(_FOLDERS)}.")
    sheets = [(file, _sheet(file, value, path)) for file, value in read_pickles(files, _KEEP)]
    inside = sheets[0][1].values
    names = {
        role: (role,) for role in ("success", "task", "hidden", "state", "action", "chunk", "samples") if role in inside
    }
    note = "steps are inferences; samples are kept where the executed actions are part of one"
    return with_note(log_of(sheets, Fields(names=names, assumed=False), path), note)


def _sheet(file: Path, value: Any, path: Path) -> Sheet:
    where = str(file)
    metadata, steps = _parts(value, where)
    values: dict[str, Any] = {"success": _success(metadata, file), "task": path.absolute().name}
    chunks = np.stack([_matrix(step["action"], f"{where}: action") for step in steps])
    values |= {"chunk": chunks, "action": chunks[:, 0]}
    if all("obs_embedding" in step for step in steps):
        values["hidden"] = np.stack([np.ravel(np.asarray(step["obs_embedding"], np.float32)) for step in steps])
    if all("agent_pos" in step for step in steps):
        values["state"] = np.stack([np.atleast_2d(np.asarray(step["agent_pos"], np.float32))[-1] for step in steps])
    samples = _samples(steps, chunks)
    return Sheet(where, values | ({} if samples is None else {"samples": samples}))


def _parts(value: Any, where: str) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    if isinstance(value, dict):
        metadata, steps = value.get("metadata"), value.get("rollout")
    else:
        metadata, steps = (value[0], value[1:]) if isinstance(value, list) and value else (None, None)
    whole = isinstance(steps, list) and bool(steps) and all(isinstance(s, dict) and "action" in s for s in steps)
    if not whole or not isinstance(metadata, dict | None):
        raise EpisodeDataError(f"{where} holds no rollout of steps with an action.")
    assert isinstance(steps, list)
    return metadata or {}, steps


def _success(metadata: Mapping[str, Any], file: Path) -> bool:
    """From the metadata, else from the name; both, where there are both, say the same."""
    found = _OUTCOME.search(file.stem)
    named = None if found is None else found[1] == "s"
    told = read_success(metadata["successful"], f"{file}: successful") if "successful" in metadata else named
    if told is None or named not in (None, told):
        raise EpisodeDataError(
            f"{file}: neither its name (_s_, _f_) nor its metadata says how it ended, or they differ."
        )
    return told


def _matrix(value: Any, where: str) -> Array:
    array = np.asarray(value)
    return read_array(array[None] if array.ndim == 1 else array, where, (None, None))


def _samples(steps: Sequence[Mapping[str, Any]], chunks: Array) -> Array | None:
    """(T, K, H, A) of the part of the prediction that was executed; None where it is not found at some step."""
    found = []
    for step, chunk in zip(steps, chunks, strict=True):
        drawn = np.asarray(step.get("action_pred", 0.0))
        starts = (
            range(drawn.shape[1] - len(chunk) + 1) if drawn.ndim == 3 and drawn.shape[2:] == chunk.shape[1:] else ()
        )
        at = next((s for s in starts if (drawn[:, s : s + len(chunk)] == chunk).all(axis=(1, 2)).any()), None)
        if at is None:
            return None
        found.append(drawn[:, at : at + len(chunk)])
    return np.stack(found) if len({part.shape for part in found}) == 1 else None


FORMAT: LogFormat = Format(name="fiper", sniff=_sniff, read=_read)
