"""SHA-256 of every file of a sealed run, in `meta/failsight/checksums.json`, and who is asked before a file is believed.

Parquet files are found damaged at each read (`episodes.parquet`); `run.json` too, because it is small and decides what
the rest means. Everything else, videos above all, is compared by `failsight verify RUN`. A run sealed by an older
version has no checksums and is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError
from failsight.episodes.disk import reason

PLACE = "meta/failsight/checksums.json"
_BLOCK = 2**20


def digest_of(path: Path) -> str:
    """SHA-256 of a file. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def checksums_json(files: Iterable[tuple[str, Path]]) -> str:
    """The file's text for (name inside the run, where it is now)."""
    digests = {name: digest_of(path) for name, path in sorted(files)}
    return json.dumps({"algorithm": "sha256", "files": digests, "self": _own_digest(digests)}, indent=1)


def read_checksums(root: Path) -> dict[str, str] | None:
    """Name -> SHA-256, None when the run has no checksums. Raises EpisodeDataError when the list itself is damaged."""
    path = root / PLACE
    try:
        content: Any = json.loads(path.read_bytes())
        files = {str(name): str(digest) for name, digest in content["files"].items()}
        whole = content["self"] == _own_digest(files)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EpisodeDataError(f"Cannot read {path} ({reason(error)}); {_ADVICE}") from error
    if not whole:
        raise EpisodeDataError(f"{path} was changed after the run was sealed; {_ADVICE}")
    return files


_ADVICE = "restore it from a copy, or delete it to go on without checksums."


def require_sealed(root: Path, name: str, data: bytes) -> None:
    """Refuse file content that is not what was sealed; says nothing where there are no checksums.

    Raises EpisodeDataError naming the file.
    """
    known = read_checksums(root)
    if known is not None and known.get(name, "") not in ("", hashlib.sha256(data).hexdigest()):
        raise EpisodeDataError(
            f"{root / name} is not what was sealed (its SHA-256 differs): restore it from a copy. If the change is meant, "
            f"delete {root / PLACE}."
        )


def _own_digest(files: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
