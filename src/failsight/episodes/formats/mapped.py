"""Any usual file of episodes -> a log, once it is known which name means what."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_array, read_count, read_success, read_text
from failsight.core.specs import Access, Dimension, SignalColumn
from failsight.core.types import Array
from failsight.episodes.formats.fields import SCALARS, WHOLE, Fields, choose, shown
from failsight.episodes.formats.format import ReadOptions, named_like
from failsight.episodes.formats.rows import Sheet
from failsight.episodes.logged import Log, LoggedEpisode, notes_about, read_instruction

COLUMN_LIMIT = 1024
"""Signals of a log."""
LOG_LIMIT = 2**32
"""Bytes of a log in memory."""
_WHOLE = re.compile(r"^(\d+)\.0+$")
"""A whole number as tables write it that once held a gap."""
_RANK = {"chunk": 3, "samples": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Files of one kind."""

    kind: str
    suffixes: tuple[str, ...]
    names: Callable[[Path], tuple[str, ...]]
    """Names in a file; empty: it is none for us. Raises EpisodeDataError when it cannot be read."""
    sheets: Callable[[Path, Fields], Iterator[Sheet]]
    """Its episodes, with the values of `fields.wanted`."""

    def sniff(self, path: Path) -> str:
        """What the files are, and the names in the first one."""
        files = named_like(path, self.suffixes)
        names = self.names(files[0]) if files else ()
        many = "s" * (len(files) != 1)
        return f"{len(files)} {self.kind} file{many} with {shown(names)}" if names else ""

    def read(self, path: Path, options: ReadOptions) -> Log:
        """The log of all files. Raises EpisodeDataError naming the file and place that cannot be read."""
        files = named_like(path, self.suffixes)
        if not files:
            raise EpisodeDataError(f"{path} holds no file ending in {', '.join(self.suffixes)}.")
        names, told = self.names(files[0]), facts_in(files[0].name)
        fields = choose(options.fields, (*names, *(fact for fact in told if fact not in names)), str(files[0]))
        inside = replace(fields, names={r: tuple(n for n in some if n in names) for r, some in fields.names.items()})
        return log_of(self._all(files, inside, [name for name in fields.wanted if name not in names]), fields, path)

    def _all(self, files: Sequence[Path], inside: Fields, outside: Sequence[str]) -> Iterator[tuple[Path, Sheet]]:
        """The episodes of all files; `outside`: what their names say."""
        for file in files:
            told = facts_in(file.name)
            missing = [name for name in outside if name not in told]
            if missing:
                raise EpisodeDataError(f"The name of {file} does not say {', '.join(missing)}, as other names do.")
            for sheet in self.sheets(file, inside):
                yield file, sheet._replace(values={**sheet.values, **{name: told[name] for name in outside}})


def facts_in(name: str) -> dict[str, str]:
    """What a file name says as OpenVLA's evaluation writes them: `...--episode=3--success=False--task=open_the_drawer.npz`.

    >>> facts_in("2025--episode=3--success=False--task=open.npz")
    {'episode': '3', 'success': 'False', 'task': 'open'}
    """
    parts = name.removesuffix(".gz").rpartition(".")[0].split("--")
    pairs = (part.partition("=") for part in parts)
    return {role: text for role, _, text in pairs if role in ("success", "episode", "task") and text}


class _Part(NamedTuple):
    """An episode before its number is known."""

    number: Any
    episode: LoggedEpisode
    columns: tuple[str, ...]
    states: tuple[str, ...]
    actions: tuple[str, ...]


def log_of(sheets: Iterable[tuple[Path, Sheet]], fields: Fields, path: Path) -> Log:
    """Episodes as they come from files -> a log. Raises EpisodeDataError when they do not fit together."""
    parts, size = list[_Part](), 0
    for file, sheet in sheets:
        part = _part(file, sheet, fields, path)
        if parts and part[2:] != parts[0][2:]:
            raise EpisodeDataError(f"{sheet.where} has other entries than {parts[0].episode.task}'s first episode.")
        if len(part.columns) > COLUMN_LIMIT:
            raise EpisodeDataError(f"{sheet.where} has {len(part.columns)} signals; at most {COLUMN_LIMIT} are read.")
        size += sum(
            a.nbytes for a in (part.episode.signals, part.episode.hidden, part.episode.actions) if a is not None
        )
        if size > LOG_LIMIT:
            raise EpisodeDataError(f"{file}: up to here the log takes {size >> 20} MiB; import its files in parts.")
        parts.append(part)
    if not parts:
        raise EpisodeDataError(f"{path} holds no episode.")
    episodes = _numbered(parts)
    return Log(
        columns=tuple(SignalColumn(name=name, unit="?", access=Access.ACTIONS) for name in parts[0].columns),
        episodes=episodes,
        notes=(*_taken(fields, parts[0]), *_missing(parts), *_assumed(parts[0]), *notes_about(episodes)),
        actions=tuple(map(dimension_of, parts[0].actions)),
        states=parts[0].states,
    )


def with_note(log: Log, note: str) -> Log:
    """The log with one more note about how it was read."""
    return replace(log, notes=(*log.notes, note))


def dimension_of(name: str) -> Dimension:
    """An entry of an action by its name: a gripper is open or closed, anything else a change per step."""
    if name in ("gripper", "grip"):
        return Dimension(name="gripper", kind="binary", unit="1")
    return Dimension(name=name, kind="delta", unit="?")


def _taken(fields: Fields, part: _Part) -> list[str]:
    """Which names were taken for what, and which numbers nobody asked for turned out to be none."""
    if not fields.assumed:
        return [fields.told]
    found = {column.split(".")[0] for column in part.columns} | set(part.columns)
    passed = [name for name in fields["signals"] if name not in found]
    told = replace(fields, names={**fields.names, "signals": part.columns}).told
    return [told, *([f"not read, for they are no numbers: {shown(passed)}"] if passed else [])]


def _missing(parts: Sequence[_Part]) -> list[str]:
    """How many values of which signals are not there, or not finite."""
    counts = sum(np.isnan(part.episode.signals).sum(axis=0) for part in parts)
    lost = [f"{name} {count}" for name, count in zip(parts[0].columns, np.atleast_1d(counts), strict=False) if count]
    return [f"values that are missing or not finite: {shown(lost)}"] if lost else []


def _assumed(part: _Part) -> list[str]:
    if not part.actions:
        return []
    return ["actions count as changes per step and `gripper` as closing above 0, for the log does not say"]


def _numbered(parts: Sequence[_Part]) -> tuple[LoggedEpisode, ...]:
    """Numbers within a task: the file's own where all are whole, else in order."""
    whole = all(_whole(part.number) is not None for part in parts)
    counts: dict[str, int] = {}
    episodes = []
    for part in parts:
        task = part.episode.task
        order = counts.get(task, 0)
        counts[task] = order + 1
        number = _whole(part.number) if whole else order
        assert number is not None
        seed = part.episode.seed if part.episode.seed >= 0 else number
        episodes.append(replace(part.episode, number=number, seed=seed))
    return tuple(episodes)


def _whole(value: Any) -> int | None:
    if isinstance(value, str | bytes):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else None
    try:
        return read_count(value, "")
    except EpisodeDataError:
        return None


def _part(file: Path, sheet: Sheet, fields: Fields, path: Path) -> _Part:
    told = {role: _told(sheet, fields, role) for role in SCALARS}
    stem = file.name.removesuffix(".gz").rpartition(".")[0] or file.name
    alone = sheet.alone and path.is_dir() and not fields["episode"]
    default = path.absolute().name if alone else stem
    task = read_text(default if told["task"] is None else _text(told["task"]), f"{sheet.where}: task")
    names, arrays = _arrays(sheet, fields)
    episode = LoggedEpisode(
        task=task,
        instruction=read_instruction(told["instruction"], task, f"{sheet.where}: {fields.one('instruction')}"),
        seed=-1 if told["seed"] is None else _seed(told["seed"], f"{sheet.where}: {fields.one('seed')}"),
        number=0,
        success=read_success(told["success"], f"{sheet.where}: {fields.one('success')}"),
        **arrays,
    )
    return _Part(told["episode"], episode, names["signals"], names["state"], names["action"])


def _told(sheet: Sheet, fields: Fields, role: str) -> Any:
    """The one value of an episode; None where the file has none. Only an instruction may be missing in some episodes."""
    name = fields.one(role)
    value = sheet.values.get(name)
    if name and value is None and role != "instruction":
        raise EpisodeDataError(f"{sheet.where} has no {name}.")
    value = _scalar(value, f"{sheet.where}: {name}")
    counted = role in ("success", "episode", "seed") and isinstance(value, str)
    return _WHOLE.sub(r"\1", value) if counted else value


def _seed(value: Any, where: str) -> int:
    return read_count(value if _whole(value) is None else _whole(value), where)


def _text(value: Any) -> Any:
    return value if isinstance(value, str | bytes | np.ndarray | np.generic) else str(value)


def _scalar(value: Any, where: str) -> Any:
    """One value; an array or list of one is that one."""
    if isinstance(value, list | tuple | np.ndarray) and np.ndim(value) > 0:
        flat = np.ravel(np.asarray(value))
        if len(flat) != 1:
            raise EpisodeDataError(f"{where}: expected one value for the episode, found {len(flat)}.")
        return flat[0]
    return value


def _arrays(sheet: Sheet, fields: Fields) -> tuple[dict[str, tuple[str, ...]], dict[str, Any]]:
    signals, columns = _joined(sheet, fields["signals"], missing=True, passing=fields.assumed)
    hidden, _ = _joined(sheet, fields["hidden"], missing=True)
    states, entries = _joined(sheet, fields["state"])
    actions, dimensions = _joined(sheet, fields["action"])
    parts = {"signals": signals, "hidden": hidden, "states": states, "actions": actions}
    parts |= {role + "s" * (role == "chunk"): _whole_array(sheet, fields.one(role), role) for role in WHOLE}
    lengths = {name: len(part) for name, part in parts.items() if part is not None}
    if len(set(lengths.values())) != 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items()) or "no numbers"
        raise EpisodeDataError(f"{sheet.where}: steps differ in number ({told}).")
    if signals is None:
        parts["signals"] = np.zeros((next(iter(lengths.values())), 0), np.float32)
    return {"signals": columns, "state": entries, "action": dimensions}, parts


def _whole_array(sheet: Sheet, name: str, role: str) -> Array | None:
    if not name or sheet.values.get(name) is None:
        return None
    return read_array(sheet.values[name], f"{sheet.where}: {name}", (None,) * _RANK[role])


def _joined(
    sheet: Sheet, names: Sequence[str], *, missing: bool = False, passing: bool = False
) -> tuple[Array | None, tuple[str, ...]]:
    """(T, entries) of several names side by side, and the name of each entry; `passing`: leave out what is no number."""
    columns, entries = list[Array](), list[str]()
    for name in names:
        where = f"{sheet.where}: {name}"
        if sheet.values.get(name) is None:
            raise EpisodeDataError(f"{sheet.where} has no {name}.")
        values = numbers(sheet.values[name])
        if passing and (values.dtype.kind not in "fiub" or values.ndim not in (1, 2)):
            continue
        flat = values.ndim == 1
        array = read_array(values[:, None] if flat else values, where, (None, None), finite=not missing)
        columns.append(array)
        entries += [name] if flat else [f"{name}.{i}" for i in range(array.shape[1])]
    if len({len(column) for column in columns}) > 1:
        raise EpisodeDataError(f"{sheet.where}: {shown(names)} differ in their number of steps.")
    return (np.concatenate(columns, axis=1), tuple(entries)) if columns else (None, ())


def numbers(value: Any) -> Array:
    """An array of whatever stands there, () or (T, ...); nothing (null) among numbers is NaN, and true is 1.

    What is no array, rows of several lengths for example, becomes a text () that no reader of numbers takes.
    """
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            array = np.array([np.nan if v is None else v for v in np.ravel(array)]).reshape(array.shape)
    except (ValueError, TypeError):
        return np.array("uneven")
    return array.astype(np.float32) if array.dtype.kind == "b" else array
