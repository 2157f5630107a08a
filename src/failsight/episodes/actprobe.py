"""Reader of ActProbe logs: JSON lines (one episode per line, plain or gzip) and npz (episodes joined along time).

Format as released with ActProbe (Huang et al. 2026, arXiv 2606.08508). A step is one policy inference. The npz files do
not name their ten signal columns: the names below were inferred by comparing ranges and zero patterns with the JSON
files, and `denoising_curvature` is the least certain. Pickles are never read.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.specs import Access, SignalColumn
from failsight.core.types import Array
from failsight.episodes.logged import Log, LoggedEpisode

SUFFIXES = (".jsonl", ".jsonl.gz", ".npz")
_ACTION, _BODY, _INNER = Access.ACTIONS, Access.PROPRIOCEPTION, Access.SAMPLES
_KNOWN: Mapping[str, tuple[str, Access]] = {
    "action_norm": ("action", _ACTION),
    "chunk_mse": ("action^2", _ACTION),
    "action_jerk": ("action", _ACTION),
    "gripper_oscillation": ("count", _ACTION),
    "chunk_mse_mmd": ("1", _ACTION),
    "denoising_curvature": ("1", _INNER),
    "eef_z": ("m", _BODY),
    "eef_z_vel": ("m/step", _BODY),
    "eef_speed_3d": ("m/step", _BODY),
    "gripper_qpos_mean": ("m", _BODY),
    "gripper_qpos_vel": ("m/step", _BODY),
}
_NPZ_COLUMNS = (
    *("action_norm", "gripper_oscillation", "denoising_curvature", "eef_z", "chunk_mse", "chunk_mse_mmd"),
    *("gripper_qpos_mean", "eef_z_vel", "eef_speed_3d", "gripper_qpos_vel"),
)
_NPZ_KEYS = ("signals10", "length", "success", "episode_id", "seed", "instruction")


def log_files(path: Path) -> list[Path]:
    """The log files of a folder, or the one file. Raises EpisodeDataError when there is none."""
    files = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES)) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise EpisodeDataError(f"{path} holds no ActProbe log; expected files ending in {', '.join(SUFFIXES)}.")
    return files


def read_actprobe(files: Sequence[Path]) -> Log:
    """All episodes of the files, each file one task named after the file.

    Raises EpisodeDataError naming the file, and the line or key, that cannot be read.
    """
    columns: tuple[str, ...] | None = None
    episodes: list[LoggedEpisode] = []
    for path in files:
        names, part = _read_npz(path) if path.suffix == ".npz" else _read_lines(path)
        if columns is not None and names != columns:
            raise EpisodeDataError(
                f"{path} has the signals {', '.join(names)}; {files[0]} has {', '.join(columns)}. "
                "Import them as separate runs."
            )
        columns = names
        episodes += part
    described = tuple(_column(name) for name in columns or ())
    return Log(columns=described, episodes=tuple(episodes))


def _column(name: str) -> SignalColumn:
    unit, access = _KNOWN.get(name, ("?", _ACTION))
    return SignalColumn(name=name, unit=unit, access=access)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0]


def _read_lines(path: Path) -> tuple[tuple[str, ...], list[LoggedEpisode]]:
    try:
        opener = gzip.open if path.name.endswith(".gz") else open
        with opener(path, "rt") as lines:
            records = [(i, json.loads(line)) for i, line in enumerate(lines, 1) if line.strip()]
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EpisodeDataError(f"Cannot read {path} ({error}); the file is damaged or was cut off.") from error
    if not records:
        raise EpisodeDataError(f"{path} holds no episode.")
    try:
        first = records[0][1]["steps"][0]
        names = tuple(name for name in first if name != "t")
        return names, [_line_episode(path, record, names) for _, record in records]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EpisodeDataError(
            f"{path} is not an ActProbe log ({type(error).__name__}: {error}); every line needs episode_id, success and "
            "steps with the same numbers."
        ) from error


def _line_episode(path: Path, record: Mapping[str, Any], names: tuple[str, ...]) -> LoggedEpisode:
    signals = np.array([[step[name] for name in names] for step in record["steps"]], np.float32)
    if len(signals) != record.get("length", len(signals)):
        raise ValueError(f"episode {record['episode_id']} says {record['length']} steps and has {len(signals)}")
    return LoggedEpisode(
        task=_stem(path),
        instruction=str(record.get("task_description", _stem(path))),
        seed=int(record["episode_id"]),
        number=int(record["episode_id"]),
        success=bool(record["success"]),
        signals=signals,
    )


def _read_npz(path: Path) -> tuple[tuple[str, ...], list[LoggedEpisode]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise EpisodeDataError(f"Cannot read {path} ({error}); the file is damaged or was cut off.") from error
    missing = [key for key in _NPZ_KEYS if key not in data]
    if missing:
        raise EpisodeDataError(f"{path} lacks {', '.join(missing)}; it is not an ActProbe npz log.")
    ends = np.cumsum(data["length"])
    if len(ends) == 0 or ends[-1] != len(data["signals10"]) or (data["length"] < 1).any():
        raise EpisodeDataError(
            f"{path} has {len(data['signals10'])} steps but its lengths add up to {ends[-1:].sum()}."
        )
    return _NPZ_COLUMNS, [_npz_episode(path, data, i, ends) for i in range(len(ends))]


def _npz_episode(path: Path, data: Mapping[str, Array], i: int, ends: Array) -> LoggedEpisode:
    rows = slice(int(ends[i] - data["length"][i]), int(ends[i]))
    return LoggedEpisode(
        task=_stem(path),
        instruction=str(data["instruction"][i]),
        seed=int(data["seed"][i]),
        number=int(data["episode_id"][i]),
        success=bool(data["success"][i]),
        signals=data["signals10"][rows].astype(np.float32),
        hidden=data["hidden"][rows] if "hidden" in data else None,
    )
