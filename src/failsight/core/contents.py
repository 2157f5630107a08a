"""What files hold: a digest of their bytes, and whether they still hold what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError


def content_of(path: Path) -> str:
    """16 hex digits over a file's bytes, read once per process as long as its size, times and inode stay."""
    stat = path.stat()
    return _content(str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=256)
def _content(path: str, *stamp: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def note_files(paths: Iterable[Path]) -> dict[str, list[Any]]:
    """Name -> size, time and content of files just written, for `require_unchanged`."""
    return {path.name: [path.stat().st_size, path.stat().st_mtime_ns, content_of(path)] for path in sorted(paths)}


def require_unchanged(folder: Path, files: Mapping[str, Sequence[Any]]) -> None:
    """Refuse files that hold other bytes than were noted; they are read only where size or time differ.

    Raises EpisodeDataError naming the file.
    """
    for name, (size, time_ns, content) in files.items():
        path = folder / name
        if not path.is_file() or (path.stat().st_size, path.stat().st_mtime_ns) == (size, time_ns):
            continue
        if content_of(path) != content:
            raise EpisodeDataError(f"{path} is not what was written there; make the folder again.")
