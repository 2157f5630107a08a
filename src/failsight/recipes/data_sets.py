"""Any data a policy can be trained on -> one mapped folder: a run, a LeRobot folder, Mobile-VLA HDF5, or that folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from failsight.core.demonstrations import Demonstration, DemonstrationSet, load_demonstrations, save_demonstrations
from failsight.core.errors import EpisodeDataError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import Array, Outcome
from failsight.episodes.consistency import with_steps
from failsight.episodes.lerobot import LeRobotFolder
from failsight.episodes.mobile_vla import files_of, read_folder
from failsight.episodes.run import Run
from failsight.labels.failure_tokens import read_tokens, tokens_of
from failsight.labels.table import read_labels


def open_data(
    path: Path, cache: Path | None = None, phrasings: Mapping[str, Sequence[str]] | None = None
) -> DemonstrationSet:
    """The data at `path`, converted once into `cache` (default: `.frames` beside it).

    Raises EpisodeDataError when it is none of the formats known, or damaged.
    """
    if (path / "episodes.json").is_file():
        return load_demonstrations(path)
    if not path.is_dir():
        raise EpisodeDataError(f"No data in {path.absolute()}: the folder does not exist.")
    target = cache or path / ".frames"
    stamp = _stamp(path)
    if (
        (target / "episodes.json").is_file()
        and (target / "stamp").is_file()
        and (target / "stamp").read_text() == stamp
    ):
        return load_demonstrations(target)
    episodes, actions, observations = _read(path)
    save_demonstrations(target, episodes, actions, observations, source=str(path), phrasings=phrasings)
    (target / "stamp").write_text(stamp)
    return load_demonstrations(target)


def is_training_data(path: Path) -> bool:
    """Whether a folder is a data set for training and not a run of ours."""
    if (path / "meta/failsight/run.json").is_file():
        return False
    return bool(files_of(path)) or (path / "episodes.json").is_file() or (path / "meta/info.json").is_file()


def _stamp(path: Path) -> str:
    """Names, sizes and times of the files, so that a changed folder is read again."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(path.rglob("*")):
        if (
            file.is_file()
            and ".frames" not in file.parts
            and file.suffix in (".h5", ".hdf5", ".parquet", ".json", ".npy", ".mp4")
        ):
            stat = file.stat()
            digest.update(f"{file.relative_to(path)}:{stat.st_size}:{stat.st_mtime_ns}".encode())
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
    """A run of ours: units from its own specs, failure labels from its label table, tokens where somebody set them."""
    run, folder = Run(path), LeRobotFolder(path)
    labels, tokens = read_labels(run), read_tokens(run)

    def episodes() -> Iterator[Demonstration]:
        for meta, item in zip(with_steps(run.episodes), folder.episodes(), strict=True):
            label = labels.get(meta.ticket)
            failed = np.nan if label is None else float(meta.outcome == Outcome.FAILURE)
            known = tokens.get(meta.ticket, _unknown(meta.length) if label is None else tokens_of(run, label))
            yield replace(
                item,
                scenario=meta.task,
                fails=np.full(meta.length, failed, np.float32),
                left=np.asarray(_unknown(meta.length) if label is None else label.time_to_failure, np.float32),
                failing=known,
            )

    return episodes(), run.meta.action_spec, run.meta.observation_spec


def _unknown(length: int) -> Array:
    return np.full(length, np.nan, np.float32)
