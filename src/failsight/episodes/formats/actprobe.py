"""Reader of ActProbe logs: JSON lines (one episode per line, plain or gzip) and npz (episodes joined along time).

Format as released with ActProbe (Huang et al. 2026, arXiv 2606.08508); a step is one policy inference. JSON lines go by
name: what `log_steps` does with nested, late and missing signals holds for all of them, GR00T's logs included. npz
files go by position (`actprobe_npz`). Pickles are never read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_count, read_success, read_text
from failsight.core.specs import Access, SignalColumn
from failsight.core.types import Array
from failsight.episodes.formats.actprobe_npz import COLUMNS as NPZ_COLUMNS
from failsight.episodes.formats.actprobe_npz import NpzNotes, read_npz
from failsight.episodes.formats.format import Format, LogFormat, ReadOptions, named_like
from failsight.episodes.formats.json_lines import read_records
from failsight.episodes.formats.log_steps import StepReader, StepTable
from failsight.episodes.logged import Log, LoggedEpisode, notes_about, read_instruction
from failsight.storage.npz_members import member_names

SUFFIXES = (".jsonl", ".jsonl.gz", ".npz")
_KINDS = {".jsonl": "JSON lines", ".jsonl.gz": "packed JSON lines", ".npz": "npz"}
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
_NEEDED = ("episode_id", "success", "steps")
LOG_LIMIT = 2**32
"""Bytes of all signals and hidden states of a log together."""


def log_files(path: Path) -> list[Path]:
    """The log files of a folder, or the one file. Raises EpisodeDataError when there is none or one is no file."""
    files = named_like(path, SUFFIXES)
    if not files:
        if not path.exists():
            raise EpisodeDataError(f"{path} does not exist.")
        raise EpisodeDataError(f"{path} holds no ActProbe log; expected files ending in {', '.join(SUFFIXES)}.")
    return files


def sniff_actprobe(path: Path) -> str:
    """Counts of the files whose first one of a kind has ActProbe's names. Raises EpisodeDataError when it cannot be read."""
    files = named_like(path, SUFFIXES)
    kinds = {suffix: [f for f in files if f.name.endswith(suffix)] for suffix in SUFFIXES}
    ours = {suffix: some for suffix, some in kinds.items() if some and _looks_ours(some[0])}
    if not ours:
        return ""
    told = [f"{len(some)} {_KINDS[suffix]} file{'s' * (len(some) > 1)}" for suffix, some in ours.items()]
    return f"{' and '.join(told)} in ActProbe's layout"


def _looks_ours(file: Path) -> bool:
    if file.suffix == ".npz":
        return "signals10" in member_names(file)
    first = next(iter(read_records(file)), None)
    return first is None or "steps" in first.data


def read_actprobe(files: Sequence[Path]) -> Log:
    """All episodes of the files, each file one task named after the file (and `task_id`, where it has several).

    Raises EpisodeDataError naming the file, and the line or key, that cannot be read.
    """
    reader, npz = StepReader(), NpzNotes()
    found, parts = dict[str, None](), list[_Part]()
    first: tuple[Path, set[str]] | None = None
    for path in files:
        part = _read_file(path, reader, npz)
        names = dict.fromkeys(name for p in part for name in p.table.names)
        first = first or (path, set(names))
        if set(names) != first[1]:
            _refuse_names(path, set(names), *first)
        found |= names
        parts += part
        _check_size(path, parts, found)
    columns = tuple(found)
    episodes = tuple(replace(p.episode, signals=_by_name(p.table, columns)) for p in parts)
    notes = (*npz.lines(), *_notes(reader.lost + npz.lost, reader.uneven), *notes_about(episodes))
    return Log(columns=tuple(map(_column, columns)), episodes=episodes, notes=notes)


class _Part(NamedTuple):
    """An episode before the columns of the whole log are known."""

    where: str
    task_id: str
    episode: LoggedEpisode
    table: StepTable


def _read_file(path: Path, reader: StepReader, npz: NpzNotes) -> list[_Part]:
    task = read_text(_stem(path), f"{path}: the name of the file")
    if path.suffix == ".npz":
        parts = [_Part(str(path), "", e, StepTable(NPZ_COLUMNS, e.signals)) for e in read_npz(path, task, npz)]
    else:
        parts = list(_read_lines(path, task, reader))
    if not parts:
        raise EpisodeDataError(f"{path} holds no episode.")
    if not any(p.table.names for p in parts):
        raise EpisodeDataError(f"{path} holds no signal: its steps have nothing but their time.")
    if len({p.task_id for p in parts}) > 1:
        parts = [p._replace(episode=replace(p.episode, task=f"{task}-{p.task_id}")) for p in parts]
    before: dict[tuple[str, int], str] = {}
    for p in parts:
        key = p.episode.task, p.episode.number
        if key in before:
            raise EpisodeDataError(f"{p.where}: episode {key[1]} of task {key[0]} stands in {before[key]} already.")
        before[key] = p.where
    return parts


def _check_size(path: Path, parts: Sequence[_Part], names: Sized) -> None:
    size = sum(4 * len(p.table.values) * len(names) for p in parts)
    size += sum(p.episode.hidden.nbytes for p in parts if p.episode.hidden is not None)
    if size > LOG_LIMIT:
        raise EpisodeDataError(
            f"{path}: up to here the log takes {size >> 20} MiB, more than the limit of {LOG_LIMIT >> 20}; "
            "import its files in parts."
        )


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


def _notes(lost: Counter[str], uneven: int) -> list[str]:
    notes = []
    if lost:
        names = ", ".join(f"{name} {count}" for name, count in lost.most_common(6))
        notes.append(f"{lost.total()} values are not finite numbers and count as missing ({names})")
    if uneven:
        notes.append(f"{uneven} episodes have unequal time between steps; steps count as equally spaced")
    return notes


def _column(name: str) -> SignalColumn:
    unit, access = _KNOWN.get(name, ("?", _ACTION))
    return SignalColumn(name=name, unit=unit, access=access)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0]


def _read_lines(path: Path, task: str, reader: StepReader) -> Iterator[_Part]:
    for where, record in read_records(path):
        missing = [key for key in _NEEDED if key not in record]
        if missing:
            raise EpisodeDataError(f"{where} has no {', '.join(missing)}; it is not an ActProbe log.")
        table = reader.read(record["steps"], where)
        steps = len(table.values)
        if read_count(record.get("length", steps), f"{where} length") != steps:
            raise EpisodeDataError(f"{where} says {record['length']} steps and has {steps}.")
        number = read_count(record["episode_id"], f"{where} episode_id")
        episode = LoggedEpisode(
            task=task,
            instruction=read_instruction(record.get("task_description"), task, f"{where} task_description"),
            seed=number,
            number=number,
            success=read_success(record["success"], where),
            signals=table.values,
        )
        yield _Part(where, _task_id(record.get("task_id"), where), episode, table)


def _task_id(value: Any, where: str) -> str:
    if value is None:
        return ""
    return (
        read_text(value, f"{where} task_id") if isinstance(value, str) else str(read_count(value, f"{where} task_id"))
    )


def _read(path: Path, options: ReadOptions) -> Log:
    options.refuse_fields("actprobe")
    return read_actprobe(log_files(path))


FORMAT: LogFormat = Format(name="actprobe", sniff=sniff_actprobe, read=_read)
