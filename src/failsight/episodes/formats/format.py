"""What a format is, and which one a path is in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.registry import claims, resolve
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.episodes.demonstrations import Demonstration
from failsight.episodes.logged import Log

Demonstrations: TypeAlias = tuple[Iterator[Demonstration], ActionSpec, ObservationSpec]
"""Episodes, read one at a time, and what their numbers mean."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What a person says about a file that does not say it itself."""

    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What an episode needs (`success`, `signals`, ...) -> names in the file; empty: nothing was said."""

    def refuse_fields(self, name: str) -> None:
        """For a format whose names are known. Raises EpisodeDataError when somebody named fields."""
        if self.fields:
            raise EpisodeDataError(f"The format {name} has names of its own; leave --map out, or choose --format.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format(Generic[T]):
    """One way in which others store episodes."""

    name: str
    sniff: Callable[[Path], str]
    """What lies at a path ("3 JSON lines files in ActProbe's layout"), from names and first lines; empty: not this format.

    Raises EpisodeDataError when it would be this format if it could be read.
    """
    read: Callable[[Path, ReadOptions], T]
    """Raises EpisodeDataError naming file and place."""


LogFormat: TypeAlias = Format[Log]
DemonstrationFormat: TypeAlias = Format[Demonstrations]


class UnrecognisedError(EpisodeDataError):
    """Nothing at a path belongs to any format."""


class Recognised(NamedTuple, Generic[T]):
    """A format and what it found."""

    format: Format[T]
    found: str


def named_like(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a folder (or the one file) with such names, sorted; hidden ones are nobody's.

    Raises EpisodeDataError when the folder cannot be listed, or one so named is no file.
    """
    try:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
    except OSError as error:
        raise EpisodeDataError(f"Cannot list {path} ({error.strerror}).") from error
    files = [p for p in inside if p.name.endswith(suffixes) and not p.name.startswith(".")]
    for file in files:
        if not file.is_file() and (file.is_symlink() or file.exists()):
            raise EpisodeDataError(f"{file} is not a file; logs are files ending in {', '.join(suffixes)}.")
    return [file for file in files if file.is_file()]


def recognise(
    path: Path, table: Mapping[str, str], what: str, name: str = "", advice: str = "", group: str = ""
) -> Recognised[T]:
    """The one format of `table`, or of an installed package, that `path` is in; `name` forces one.

    Args: what: kind of data, for messages; advice: the next step where nothing fits; group: entry points of others.

    Raises UnknownNameError for a name nobody has, EpisodeDataError when no format fits, or several do.
    """
    if name:
        return Recognised(_format(name, table, group), f"read as {name}")
    found, refused = list[Recognised[T]](), list[str]()
    names = dict.fromkeys((*table, *(claim.name for claim in claims(group))))
    for key in names:
        candidate: Format[T] = _format(key, table, group)
        try:
            said = candidate.sniff(path)
        except EpisodeDataError as error:
            refused.append(str(error))
            continue
        if said:
            found.append(Recognised(candidate, said))
    if not found:
        raise _nothing(path, names, what, refused, advice)
    if len(found) > 1:
        both = ", ".join(f"{one.found} ({one.format.name})" for one in found)
        raise EpisodeDataError(
            f"{path} can be read in several ways: {both}. Separate the files, or choose one by name."
        )
    return found[0]


def _format(name: str, table: Mapping[str, str], group: str) -> Format[T]:
    found = resolve("format", name, table, group)
    if not isinstance(found, Format):
        raise FailsightError(f"The format {name!r} is a {type(found).__name__}, not a failsight Format.")
    return found


def _nothing(path: Path, names: Iterable[str], what: str, refused: list[str], advice: str) -> EpisodeDataError:
    if refused:
        return EpisodeDataError(" ".join(dict.fromkeys(refused)))
    if not path.exists():
        return EpisodeDataError(f"{path.absolute()} does not exist.")
    return UnrecognisedError(f"{path} holds no {what}; tried {', '.join(names)}. {advice}".rstrip())
