"""`--config FILE`: the flags of a command from a YAML or JSON file, and the file that every run leaves behind.

    policy: tabletop-strong          # as the flag is called, without its dashes
    trials: 5
    fit: {steps: 300}                # --fit.steps 300

Flags given beside it win. Paths resolve against the file. `command:` is optional; another command refuses the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import tyro
import yaml

from failsight.core.errors import FailsightError
from failsight.core.ranges import NameOrPath
from failsight.core.textfiles import read_text_file

FLAG = "--config"
FILE = "config.yaml"
_SIZE = 2**20
_RUNNING: ContextVar[tuple[str, Mapping[str, Any]]] = ContextVar("running")


class Setting(NamedTuple):
    """One flag of a command."""

    hint: Any
    positional: bool


def settings_of(command: Callable[..., Any]) -> dict[str, Setting]:
    """Every flag of a command without its dashes (`fit.steps`), in the order of its signature."""
    found: dict[str, Setting] = {}
    hints = get_type_hints(command, include_extras=True)
    for name in signature(command).parameters:
        found |= _flatten(name, hints[name])
    return found


def _flatten(name: str, hint: Any) -> dict[str, Setting]:
    plain, notes = _bare(hint)
    if not is_dataclass(plain):
        return {name.replace("_", "-"): Setting(hint, tyro.conf.Positional in notes)}
    unnamed = any(getattr(note, "name", None) == "" for note in notes)
    hints = get_type_hints(plain, include_extras=True)
    rows: dict[str, Setting] = {}
    for field in fields(plain):
        rows |= _flatten(field.name if unnamed else f"{name}.{field.name}", hints[field.name])
    return rows


def _bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    notes: tuple[Any, ...] = ()
    while get_origin(hint) is Annotated:
        hint, *more = get_args(hint)
        notes += tuple(more)
    return hint, notes


def expand(arguments: Sequence[str], commands: Mapping[str, Callable[..., Any]]) -> list[str]:
    """The command line with `--config FILE` replaced by what the file says, before everything that was typed.

    Raises FailsightError naming file and setting when one does not exist there, or the file is for another command.
    """
    words = list(arguments)
    at = next((i for i, word in enumerate(words) if word == FLAG or word.startswith(f"{FLAG}=")), None)
    if at is None or not words or words[0] not in commands:
        return words
    joined = words[at] != FLAG
    if not joined and at + 1 == len(words):
        raise FailsightError(f"{FLAG} needs a file.")
    file = Path(words[at].removeprefix(f"{FLAG}=") if joined else words[at + 1])
    typed = words[1:at] + words[at + (1 if joined else 2) :]
    return [words[0], *_words_of(file, words[0], commands[words[0]], typed)]


def _words_of(file: Path, name: str, command: Callable[..., Any], typed: Sequence[str]) -> list[str]:
    known, first, flags = settings_of(command), list[str](), list[str]()
    placed = bool(typed) and not typed[0].startswith("-")
    for key, value in _read(file, name).items():
        setting = known.get(key)
        if setting is None:
            near = get_close_matches(key, known, 1)
            hint = f" Did you mean {near[0]}?" if near else f" It takes: {', '.join(known)}."
            raise FailsightError(f"{file}: failsight {name} has no setting {key!r}.{hint}")
        value = _located(value, setting.hint, file, key)
        if not setting.positional:
            flags += _as_words(key, value)
        elif not placed:
            first.append(str(value))
    return [*first, *typed[:1], *flags, *typed[1:]] if placed else [*first, *flags, *typed]


def _read(file: Path, name: str) -> dict[str, Any]:
    """Flat settings of a file, without its `command`."""
    _require_there(file, FLAG)
    try:
        found = yaml.safe_load(read_text_file(file, _SIZE))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise FailsightError(f"{file} is neither YAML nor JSON: {' '.join(str(error).split())}.") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise FailsightError(f"{file} holds no settings; write one `flag: value` per line.")
    meant = found.pop("command", name)
    if meant != name:
        raise FailsightError(f"{file} is for failsight {meant}, not failsight {name}.")
    return dict(_flat(found))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{str(key).replace('_', '-')}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _as_words(key: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        *where, last = key.split(".")
        return [f"--{'.'.join([*where, last if value else f'no-{last}'])}"]
    values = value if isinstance(value, list) else [value]
    if any(isinstance(entry, dict | list) for entry in values):
        raise FailsightError(f"{key} holds a list or table where one value belongs.")
    return [f"--{key}", *(str(entry) for entry in values)]


def _located(value: Any, hint: Any, file: Path, key: str) -> Any:
    """Paths against the file; what is read must be there."""
    if not isinstance(value, str):
        return value
    beside = file.absolute().parent / value
    if any(isinstance(note, NameOrPath) for note in _bare(hint)[1]):
        return str(beside) if value and os.path.lexists(beside) else value
    plain = _bare(hint)[0]
    if Path not in (plain, *(get_args(plain) if get_origin(plain) in (Union, UnionType) else ())):
        return value
    if key != "out":
        _require_there(beside, f"{file}: {key}")
    return str(beside)


def _require_there(path: Path, what: str) -> None:
    if path.exists():
        return
    if path.is_symlink():
        raise FailsightError(f"{what}: {path.absolute()} is a link to {os.readlink(path)}, which does not exist.")
    raise FailsightError(f"{what}: {path.absolute()} does not exist.")


def running(command: str, arguments: Mapping[str, Any]) -> None:
    """Remember what was asked for, for `keep`."""
    _RUNNING.set((command, arguments))


def keep(folder: Path) -> None:
    """Write the resolved settings of the running command beside what it made; nothing without a folder."""
    command, arguments = _RUNNING.get(("", {}))
    if not command or not folder.is_dir():
        return
    tree: dict[str, Any] = {"command": command}
    for name, value in arguments.items():
        if name != "out":
            tree |= _plain(name, value, folder)
    text = f"# failsight {command} --config {FILE} --out FOLDER does this again\n"
    temporary = folder / f".{FILE}.partial"
    temporary.write_text(text + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    os.replace(temporary, folder / FILE)


def _plain(name: str, value: Any, folder: Path) -> dict[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        inside: dict[str, Any] = {}
        for field in fields(value):
            inside |= _plain(field.name, getattr(value, field.name), folder)
        return inside if name == "config" else {name.replace("_", "-"): inside}
    if isinstance(value, Path) or (isinstance(value, str) and os.sep in value and Path(value).exists()):
        value = os.path.relpath(value, folder)
    return {name.replace("_", "-"): list(value) if isinstance(value, tuple) else value}
