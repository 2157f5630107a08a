"""Building a folder beside the place it is meant for: it appears there whole, or not at all.

The temporary folder has a name that nobody else uses and holds a locked marker. A killed process leaves it behind; the
next one that builds the same folder finds marker and free lock, and clears it. Nothing without our marker is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from failsight.core.errors import StorageError

_MARKER = "failsight-temporary"


@contextlib.contextmanager
def staged_folder(root: Path) -> Iterator[Path]:
    """An empty folder to fill; renamed to `root` when the block ends, removed when it raises.

    Raises StorageError when `root` exists or the disk refuses.
    """
    require_free(root)
    try:
        made = _make_parents(root.parent)
        _clear_leftovers(root)
        holder = root.with_name(f".{root.name[:60]}.{secrets.token_hex(4)}.building")
        holder.mkdir()
    except OSError as error:
        raise StorageError(f"Cannot write {root}: {error.strerror}. Choose another --out.") from error
    try:
        with (holder / _MARKER).open("w") as marker:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (holder / "whole").mkdir()
            yield holder / "whole"
            (holder / "whole").rename(root)
            made = None
    except OSError as error:
        raise StorageError(f"Cannot write {root}: {error.strerror or error}. Choose another --out.") from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)
        if made is not None:
            _remove_empty(root.parent, made)


def require_free(root: Path) -> None:
    """Raises StorageError when something is there already, or nothing can be."""
    try:
        taken = root.exists() or root.is_symlink()
    except OSError as error:
        raise StorageError(f"Cannot write {root}: {error.strerror}. Choose another --out.") from error
    if taken:
        raise StorageError(f"{root} exists already; choose another --out or delete it.")


def _make_parents(folder: Path) -> Path | None:
    """Create it; returns the topmost folder that had to be made."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[-1] if missing else None


def _remove_empty(folder: Path, topmost: Path) -> None:
    with contextlib.suppress(OSError):  # somebody else uses it meanwhile
        for path in (folder, *folder.parents):
            path.rmdir()
            if path == topmost:
                return


def _clear_leftovers(root: Path) -> None:
    for old in root.parent.glob(f".{glob.escape(root.name[:60])}.*.building"):
        if old.is_symlink() or not (old / _MARKER).is_file():
            continue
        with (old / _MARKER).open() as marker, contextlib.suppress(OSError):
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old, ignore_errors=True)
