"""Any data a policy can be trained on -> one mapped folder: a run, a LeRobot folder, Mobile-VLA HDF5, or that folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path

from failsight.core.errors import EpisodeDataError, StorageError
from failsight.episodes.demonstrations import DemonstrationSet, load_demonstrations, save_demonstrations
from failsight.episodes.formats import DEMONSTRATION_GROUP, DEMONSTRATIONS
from failsight.episodes.formats.format import Demonstrations, ReadOptions, Recognised, recognise

_LEFTOVER_S = 86_400.0
_ADVICE = "Wanted: .h5 files, a LeRobot v3 folder, or a run that was filmed (collect --video 1)."
READER = 2
"""Raised when the readers give another answer for the same files, so that no older conversion is used."""


def open_data(
    path: Path, cache: Path | None = None, phrasings: Mapping[str, Sequence[str]] | None = None
) -> DemonstrationSet:
    """The data at `path`, converted once into `cache` (default: `default_cache`, outside the data set).

    Raises EpisodeDataError when it is none of the formats known, or damaged.
    """
    if (path / "episodes.json").is_file():
        return load_demonstrations(path)
    if not path.is_dir():
        raise EpisodeDataError(f"No data in {path.absolute()}: the folder does not exist.")
    target = cache or default_cache(path)
    if path.resolve() in (target.resolve(), *target.resolve().parents):
        raise EpisodeDataError(f"The cache {target} lies inside the data set; choose a place outside it.")
    stamp = _stamp(path)
    known = _converted(target, stamp)
    wanted = None if phrasings is None else {key: list(texts) for key, texts in phrasings.items()}
    if known is not None and wanted in (None, known.phrasings):
        return known
    _clear_leftovers(target)
    episodes, actions, observations = _read(path)
    save_demonstrations(target, episodes, actions, observations, source=str(path), phrasings=phrasings)
    if _stamp(path) != stamp:
        raise EpisodeDataError(f"{path} changed while it was read; wait until it is complete, then try again.")
    try:
        (target / "stamp").write_text(stamp)
    except OSError as error:
        raise StorageError(f"Cannot write {target}: {error.strerror}. Free disk space.") from error
    return load_demonstrations(target)


def default_cache(path: Path) -> Path:
    """Where conversions of a data set lie: `failsight/frames` in the user's cache folder (`XDG_CACHE_HOME`).

    One folder per data set, named by its place; what is in it belongs to the files as they were (`_stamp`).
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    key = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=8).hexdigest()
    return home / "failsight" / "frames" / f"{path.resolve().name}-{key}"


def is_training_data(path: Path) -> bool:
    """Whether a folder is a data set for training and not a run of ours."""
    if (path / "meta/failsight/run.json").is_file():
        return False
    try:
        return (path / "episodes.json").is_file() or bool(_recognised(path))
    except EpisodeDataError:
        return False


def _clear_leftovers(target: Path) -> None:
    """Remove what killed conversions of this data set left a day ago or earlier; names are those of `save_demonstrations`."""
    for path in target.parent.glob(f".{escape(target.name)}-????????????"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFTOVER_S:
                shutil.rmtree(path)


def _converted(target: Path, stamp: str) -> DemonstrationSet | None:
    """The conversion in `target` when it belongs to these files and is whole."""
    try:
        return load_demonstrations(target) if (target / "stamp").read_text() == stamp else None
    except (OSError, ValueError, EpisodeDataError):
        return None


def _stamp(path: Path) -> str:
    """Names, sizes and times of the files (of content and of inode), so that any change is noticed and read again.

    The inode's time cannot be set by hand: a file replaced by another of the same size and date has a new one.
    """
    digest = hashlib.blake2b(f"reader {READER}".encode(), digest_size=8)
    for file in sorted(path.rglob("*")):
        place = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in place.parts):
            stat = file.stat()
            facts = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
            digest.update(os.fsencode(place) + repr(facts).encode())
    return digest.hexdigest()


def _read(path: Path) -> Demonstrations:
    format_, _ = _recognised(path)
    return format_.read(path, ReadOptions())


def _recognised(path: Path) -> Recognised[Demonstrations]:
    return recognise(path, DEMONSTRATIONS, "data that can be trained on", advice=_ADVICE, group=DEMONSTRATION_GROUP)
