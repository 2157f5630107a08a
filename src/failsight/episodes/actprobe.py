"""Reader of ActProbe logs: JSON lines (one episode per line, plain or gzip) and npz (episodes joined along time).

Format as released with ActProbe (Huang et al. 2026, arXiv 2606.08508). A step is one policy inference. The npz files do
not name their ten signal columns: the names below were inferred by comparing ranges and zero patterns with the JSON
files, and `denoising_curvature` is the least certain. Pickles are never read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_count, read_success, read_text
from failsight.core.specs import Access, SignalColumn
from failsight.core.types import Array
from failsight.episodes.json_lines import read_records
from failsight.episodes.log_steps import StepReader, StepTable
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
    """The log files of a folder, or the one file. Raises EpisodeDataError when there is none or one is no file."""
    try:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
    except OSError as error:
        raise EpisodeDataError(f"Cannot list {path} ({error.strerror}).") from error
    files = [p for p in inside if p.name.endswith(SUFFIXES) and not p.name.startswith(".")]
    for file in files:
        if not file.is_file():
            raise EpisodeDataError(f"{file} is not a file (a folder, a pipe or a broken link); take it out of {path}.")
    if not files:
        raise EpisodeDataError(f"{path} holds no ActProbe log; expected files ending in {', '.join(SUFFIXES)}.")
    return files


def read_actprobe(files: Sequence[Path]) -> Log:
    """All episodes of the files, each file one task named after the file.

    Raises EpisodeDataError naming the file, and the line or key, that cannot be read.
    """
    reader, found, parts = StepReader(), dict[str, None](), list[_Part]()
    notes: list[str] = []
    first: tuple[Path, set[str]] | None = None
    for path in files:
        part = list(_read_npz(path, notes) if path.suffix == ".npz" else _read_lines(path, reader))
        if not part:
            raise EpisodeDataError(f"{path} holds no episode.")
        names = dict.fromkeys(name for p in part for name in p.table.names)
        if not names:
            raise EpisodeDataError(f"{path} holds no signal: its steps have nothing but their time.")
        first = first or (path, set(names))
        if set(names) != first[1]:
            _refuse_names(path, set(names), *first)
        found |= names
        parts += part
    columns = tuple(found)
    episodes = tuple(replace(p.episode, signals=_by_name(p.table, columns)) for p in parts)
    return Log(columns=tuple(map(_column, columns)), episodes=episodes, notes=(*notes, *_notes(reader)))


class _Part(NamedTuple):
    """An episode before the columns of the whole log are known."""

    episode: LoggedEpisode
    table: StepTable


def _refuse_names(path: Path, names: set[str], first: Path, known: set[str]) -> None:
    more, less = ", ".join(sorted(names - known)[:6]), ", ".join(sorted(known - names)[:6])
    both = " and ".join(
        t for t in (f"has the signals {more} too" if more else "", f"lacks {less}" if less else "") if t
    )
    raise EpisodeDataError(f"Compared with {first}, {path} {both}. Import them as separate runs.")


def _by_name(table: StepTable, columns: tuple[str, ...]) -> Array:
    """(T, S) with NaN in the columns that this episode lacks."""
    if table.names == columns:
        return table.values
    result = np.full((len(table.values), len(columns)), np.nan, np.float32)
    result[:, [columns.index(name) for name in table.names]] = table.values
    return result


def _notes(reader: StepReader) -> list[str]:
    notes = []
    if reader.lost:
        names = ", ".join(f"{name} {count}" for name, count in reader.lost.most_common(6))
        notes.append(f"{reader.lost.total()} values are not finite numbers and count as missing ({names})")
    if reader.uneven:
        notes.append(f"{reader.uneven} episodes have unequal time between steps; steps count as equally spaced")
    return notes


def _column(name: str) -> SignalColumn:
    unit, access = _KNOWN.get(name, ("?", _ACTION))
    return SignalColumn(name=name, unit=unit, access=access)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0]


def _read_lines(path: Path, reader: StepReader) -> Iterator[_Part]:
    for where, record in read_records(path):
        missing = [key for key in ("episode_id", "success", "steps") if key not in record]
        if missing:
            raise EpisodeDataError(f"{where} has no {', '.join(missing)}; it is not an ActProbe log.")
        table = reader.read(record["steps"], where)
        steps = len(table.values)
        if read_count(record.get("length", steps), f"{where} length") != steps:
            raise EpisodeDataError(f"{where} says {record['length']} steps and has {steps}.")
        number = read_count(record["episode_id"], f"{where} episode_id")
        text = record.get("task_description")
        episode = LoggedEpisode(
            task=_stem(path),
            instruction=_stem(path) if text is None else read_text(text, f"{where} task_description"),
            seed=number,
            number=number,
            success=read_success(record["success"], where),
            signals=table.values,
        )
        yield _Part(episode, table)


def _read_npz(path: Path, notes: list[str]) -> Iterator[_Part]:
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
    for i in range(len(ends)):
        episode = _npz_episode(path, data, i, ends)
        yield _Part(episode, StepTable(_NPZ_COLUMNS, episode.signals))


def _npz_episode(path: Path, data: Mapping[str, Array], i: int, ends: Array) -> LoggedEpisode:
    rows = slice(int(ends[i] - data["length"][i]), int(ends[i]))
    return LoggedEpisode(
        task=_stem(path),
        instruction=str(data["instruction"][i]),
        seed=int(data["seed"][i]),
        number=int(data["episode_id"][i]),
        success=read_success(data["success"][i], f"{path} success[{i}]"),
        signals=data["signals10"][rows].astype(np.float32),
        hidden=data["hidden"][rows] if "hidden" in data else None,
    )
