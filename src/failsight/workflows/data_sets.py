"""Any data a policy can be trained on -> one mapped folder: a run, a LeRobot folder, Mobile-VLA HDF5, or that folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from glob import escape
from pathlib import Path

import numpy as np

from failsight.core.errors import EpisodeDataError, StorageError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import Array, Outcome
from failsight.episodes.checksums import require_whole
from failsight.episodes.consistency import with_steps
from failsight.episodes.demonstrations import Demonstration, DemonstrationSet, load_demonstrations, save_demonstrations
from failsight.episodes.formats.lerobot import LeRobotFolder
from failsight.episodes.formats.mobile_vla import files_of, read_folder
from failsight.episodes.run import Run
from failsight.labels.failure_tokens import read_tokens, tokens_of
from failsight.labels.table import read_labels

_LEFTOVER_S = 86_400.0
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
    return bool(files_of(path)) or (path / "episodes.json").is_file() or (path / "meta/info.json").is_file()


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


def _read(path: Path) -> tuple[Iterator[Demonstration], ActionSpec, ObservationSpec]:
    if files_of(path):
        return read_folder(path)
    if (path / "meta/failsight/run.json").is_file():
        return _read_run(path)
    if (path / "meta/info.json").is_file():
        folder = LeRobotFolder(path)
        return folder.episodes(), *folder.specs()
    raise EpisodeDataError(
        f"{path} holds no data that can be trained on: neither .h5 files, nor a LeRobot v3 folder, nor a run."
    )


def _read_run(path: Path) -> tuple[Iterator[Demonstration], ActionSpec, ObservationSpec]:
    """A run of ours: units from its own specs, failure labels from its label table, tokens where somebody set them.

    It is read once and kept, so every file is compared with its checksum before.
    """
    require_whole(path)
    run, folder = Run(path), LeRobotFolder(path)
    _require_same_columns(run, folder)
    labels, tokens = read_labels(run), read_tokens(run)

    def episodes() -> Iterator[Demonstration]:
        for number, meta in enumerate(with_steps(run.episodes)):
            label = labels.get(meta.ticket)
            failed = np.nan if label is None else float(meta.outcome == Outcome.FAILURE)
            known = tokens.get(meta.ticket, _unknown(meta.length) if label is None else tokens_of(run, label))
            yield replace(
                folder.episode(number),
                scenario=meta.task,
                fails=np.full(meta.length, failed, np.float32),
                left=np.asarray(_unknown(meta.length) if label is None else label.time_to_failure, np.float32),
                failing=known,
            )

    return episodes(), run.meta.action_spec, run.meta.observation_spec


def _require_same_columns(run: Run, folder: LeRobotFolder) -> None:
    """What `run.json` says about the columns and what `info.json` says must be the same, name by name."""
    for what, said, found in (
        ("actions", run.meta.action_spec.names, folder.action_names),
        ("states", run.meta.observation_spec.state, folder.state_names),
    ):
        if tuple(said) != found:
            raise EpisodeDataError(
                f"{run.root}: meta/failsight/run.json has the {what} {', '.join(said)} and meta/info.json "
                f"{', '.join(found)}; one of them was changed."
            )


def _unknown(length: int) -> Array:
    return np.full(length, np.nan, np.float32)
