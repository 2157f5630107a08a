"""JSON lines from outside, plain or gzip: one object per line, read within declared limits.

A line, a file and the depth of nesting are bounded, so that a damaged or hostile file costs a sentence and not the
machine. A key that stands twice in one object is refused: readers of JSON disagree about which of the two counts.
"""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from failsight.core.errors import EpisodeDataError

LINE_LIMIT = 16 * 2**20
"""Bytes of one line (one episode)."""
FILE_LIMIT = 2**30
"""Bytes of one file after unpacking."""
LINES = 100_000
"""Lines of one file."""
PARTS = 2**18
"""Objects and lists in one line."""
_BOM = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"\0")


class Record(NamedTuple):
    """One line."""

    where: str
    """File and line, for messages."""
    data: Mapping[str, Any]


def read_records(path: Path) -> Iterator[Record]:
    """The objects of a file, one at a time; blank lines are skipped.

    Raises EpisodeDataError naming file and line when one cannot be read or is larger than the limits.
    """
    for number, line in _lines(path):
        where = f"{path}:{number}"
        try:
            data = json.loads(line.decode("utf-8"), object_pairs_hook=_distinct)
        except UnicodeDecodeError as error:
            raise EpisodeDataError(f"{where} is not UTF-8 text ({error.reason}); save the file as UTF-8.") from error
        except RecursionError as error:
            raise EpisodeDataError(f"{where} is nested too deeply to be an episode.") from error
        except ValueError as error:
            raise EpisodeDataError(f"{where} cannot be read ({error}); the file is damaged or was cut off.") from error
        if not isinstance(data, dict):
            raise EpisodeDataError(f"{where} holds a {type(data).__name__}; expected an object with one episode.")
        yield Record(where, data)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    total = 0
    try:
        with _open(path) as stream:
            for number in itertools.count(1):
                line = stream.readline(LINE_LIMIT + 1)
                total += len(line)
                if not line:
                    return
                if len(line) > LINE_LIMIT or total > FILE_LIMIT or number > LINES:
                    raise EpisodeDataError(
                        f"{path}:{number} goes beyond the limit of {LINE_LIMIT >> 20} MiB per line, {LINES} lines and "
                        f"{FILE_LIMIT >> 20} MiB per file; write one episode per line and split the file."
                    )
                if line.count(b"{") + line.count(b"[") > PARTS:
                    raise EpisodeDataError(
                        f"{path}:{number} has more than {PARTS} objects and lists; it is no episode."
                    )
                if number == 1:
                    line = _without_mark(path, line)
                if line.strip():
                    yield number, line
    except OSError as error:
        raise EpisodeDataError(f"Cannot read {path} ({error.strerror or error}).") from error
    except (EOFError, zlib.error) as error:
        raise EpisodeDataError(f"Cannot read {path} ({error}); the file is damaged or was cut off.") from error


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.name.endswith(".gz") else path.open("rb")


def _without_mark(path: Path, line: bytes) -> bytes:
    if line.startswith(_WIDE) or line[1:2] == b"\0":
        raise EpisodeDataError(f"{path} is not UTF-8 text (it looks like UTF-16); save the file as UTF-8.")
    return line.removeprefix(_BOM)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:60]!r} stands twice in one object")
    return result
