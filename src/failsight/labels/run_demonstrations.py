"""A run of ours as demonstrations: its own units, failure labels and tokens, and what its policy was told in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array, Outcome
from failsight.episodes.consistency import with_steps
from failsight.episodes.demonstrations import Demonstration
from failsight.episodes.formats.format import DemonstrationFormat, Demonstrations, Format, ReadOptions
from failsight.episodes.formats.lerobot import LeRobotFolder
from failsight.episodes.run import Run
from failsight.episodes.verdicts import changes_of, read_verdicts
from failsight.labels.failure_tokens import read_tokens, tokens_of
from failsight.labels.table import read_labels
from failsight.storage.checksums import require_whole


def _sniff(path: Path) -> str:
    return "a run of failsight" if (path / "meta/failsight/run.json").is_file() else ""


def _read(path: Path, options: ReadOptions) -> Demonstrations:
    """A run of ours: units from its own specs, failure labels from its label table, tokens where somebody set them.

    It is read once and kept, so every file is compared with its checksum before.
    """
    options.refuse_fields("run")
    require_whole(path)
    run, folder = Run(path), LeRobotFolder(path)
    _require_same_columns(run, folder)
    labels, tokens, told = read_labels(run), read_tokens(run), changes_of(read_verdicts(path))

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
                changes=tuple((frame, text) for frame, text in told.get(meta.ticket, ()) if frame < meta.length),
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


FORMAT: DemonstrationFormat = Format(name="run", sniff=_sniff, read=_read)
