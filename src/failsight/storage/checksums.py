"""SHA-256 of every file of a sealed run, in `meta/failsight/checksums.json`, and who is asked before a file is believed.

Parquet files are found damaged at each read (`storage.parquet`); `run.json` too, because it is small and decides what
the rest means. Everything else, videos above all, is compared by `failsight verify RUN`. A run sealed by an older
version has no checksums and is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError
from failsight.storage.disk import reason

PLACE = "meta/failsight/checksums.json"
_BLOCK = 2**20


def digest_of(path: Path) -> str:
    """SHA-256 of a file. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksums:
    """What a run was when it was sealed."""

    files: Mapping[str, str]
    """Name inside the run -> SHA-256."""
    footers: Mapping[str, str]
    """Name of a Parquet file -> SHA-256 of its footer: cheap to compare at each read, and other for other content."""


def checksums_json(files: Iterable[tuple[str, Path]], footer_of: Callable[[Path], str]) -> str:
    """The list's text for (name inside the run, where it is now)."""
    files = sorted(files)
    content = {
        "algorithm": "sha256",
        "files": {name: digest_of(path) for name, path in files},
        "footers": {name: footer_of(path) for name, path in files if name.endswith(".parquet")},
    }
    return json.dumps({**content, "self": _own_digest(content)}, indent=1)


def read_checksums(root: Path) -> Checksums | None:
    """None when the run has no checksums. Raises EpisodeDataError when the list itself is damaged."""
    path = root / PLACE
    try:
        content: Any = json.loads(path.read_bytes())
        whole = content.pop("self") == _own_digest(content)
        found = Checksums(files=dict(content["files"]), footers=dict(content["footers"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EpisodeDataError(f"Cannot read {path} ({reason(error)}); {_ADVICE}") from error
    if not whole:
        raise EpisodeDataError(f"{path} was changed after the run was sealed; {_ADVICE}")
    return found


_ADVICE = "restore it from a copy, or delete it to go on without checksums."


def require_sealed(root: Path, name: str, data: bytes) -> None:
    """Refuse file content that is not what was sealed; says nothing where there are no checksums.

    Raises EpisodeDataError naming the file.
    """
    known = read_checksums(root)
    if known is not None and known.files.get(name, "") not in ("", hashlib.sha256(data).hexdigest()):
        raise not_sealed(root, name)


def require_whole(root: Path) -> None:
    """Refuse a run of which any file, videos too, is not what was sealed; reads all of them.

    Raises EpisodeDataError naming the first one; says nothing where there are no checksums.
    """
    known = read_checksums(root)
    for name, digest in known.files.items() if known else ():
        try:
            found = digest_of(root / name)
        except OSError as error:
            raise EpisodeDataError(f"Cannot read {root / name} ({reason(error)}); restore it from a copy.") from error
        if found != digest:
            raise not_sealed(root, name)


def not_sealed(root: Path, name: str) -> EpisodeDataError:
    """The refusal of a file that is whole in itself and not the one that was sealed."""
    return EpisodeDataError(
        f"{root / name} is not what was sealed: it was changed, truncated or swapped. Restore it from a copy. If the "
        f"change is meant, delete {root / PLACE}."
    )


def _own_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
