"""One writer per run folder: a lock that the operating system releases when its process dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from failsight.core.errors import StorageError
from failsight.storage.disk import reason, writing

NAME = ".lock"
_LITTER = re.compile(r"\..*|Thumbs\.db|desktop\.ini|.*~|#.*#", re.IGNORECASE)


def holds_files(folder: Path) -> bool:
    """Whether a folder holds a file of somebody, what file browsers and editors leave anywhere not counted."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if not _LITTER.fullmatch(path.name) and (path.is_symlink() or not path.is_dir() or holds_files(path)):
            return True
    return False


@contextmanager
def writing_alone(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` (made when missing) while the body runs; the file goes with the lock.

    Raises StorageError naming the holder when another process writes there, or when the disk cannot lock.
    """
    made = not folder.exists()
    descriptor = _take(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / NAME).unlink()
        os.close(descriptor)
        if made:
            with suppress(OSError):
                folder.rmdir()  # only when nothing came to be in it


def _take(folder: Path) -> int:
    path = folder / NAME
    with writing(folder, "Choose another --out."):
        folder.mkdir(parents=True, exist_ok=True)
    while True:
        with writing(path, "Choose another --out."):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(descriptor, path)
            if _same_file(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(_me()).encode())
                return descriptor
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise StorageError(f"Cannot lock {folder}: {reason(error)}. Choose another --out.") from error
            raise
        os.close(descriptor)  # its last holder removed the file in between; take the new one


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StorageError(
            f"{path.parent} is being written by {_holder(descriptor)}; wait for it to end, or choose another --out."
        ) from error


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _me() -> dict[str, str | int]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "since": now}


def _holder(descriptor: int) -> str:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {found['process']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
