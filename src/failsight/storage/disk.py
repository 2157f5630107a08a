"""A disk that refuses (full, read-only, missing, no rights) is one sentence, whoever was writing. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from failsight.core.errors import StorageError

ADVICE = "Free space or choose another folder."


@contextmanager
def writing(path: Path, advice: str = ADVICE) -> Iterator[None]:
    """Everything inside writes `path`. Raises StorageError naming it when the disk refuses."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {reason(error)}. {advice}") from error


def reason(error: BaseException) -> str:
    """What the operating system said, in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].rstrip(".")


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write beside `path`, then rename; nothing half-written stays. Raises StorageError when the disk refuses."""
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(data)
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
