"""Text and JSON files as others may hand them over: not a device that never ends, not larger than declared, UTF-8."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError

LIMIT = 256 * 2**20
"""Bytes of the largest text file that is read whole; summaries and run plans stay far below."""


def read_text_file(path: Path, limit: int = LIMIT) -> str:
    """The text of a regular file.

    Raises EpisodeDataError naming the file when it is missing, a folder or a device, larger than `limit` bytes, or
    not UTF-8.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise EpisodeDataError(f"{path} is not a file.")
        if found.st_size > limit:
            raise EpisodeDataError(f"{path} has {found.st_size:,} bytes; at most {limit:,} are read.")
        return path.read_text("utf-8")
    except OSError as error:
        raise EpisodeDataError(f"Cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise EpisodeDataError(f"Cannot read {path}: it is not UTF-8 text ({error}).") from error


def read_json(path: Path, limit: int = LIMIT) -> Any:
    """The value in a JSON file. Raises EpisodeDataError naming the file and, where known, line and column."""
    text = read_text_file(path, limit)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EpisodeDataError(f"{path} is not JSON ({error}); it is damaged or was cut off.") from error


def read_json_object(path: Path, limit: int = LIMIT) -> dict[str, Any]:
    """The object in a JSON file. Raises EpisodeDataError as above, and when it holds something else."""
    value = read_json(path, limit)
    if not isinstance(value, dict):
        raise EpisodeDataError(f"{path} holds a JSON {type(value).__name__}, not an object.")
    return value


def read_json_lines(path: Path, limit: int = LIMIT) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of a file that grows by whole lines; a last line that a killed process cut off is left out.

    Raises EpisodeDataError naming the file, and the line where one before the last is no JSON object.
    """
    lines = read_text_file(path, limit).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                return
            raise EpisodeDataError(f"{path}:{number} is not JSON ({error}); delete the file and run again.") from error
        if not isinstance(value, dict):
            raise EpisodeDataError(f"{path}:{number} holds no JSON object; delete the file and run again.")
        yield number, value
