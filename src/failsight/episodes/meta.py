"""What is known about an episode and a run beside their steps."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError, StorageError
from failsight.core.specs import ActionSpec, ObservationSpec, SignalColumn
from failsight.core.types import EpisodeKey, Outcome, Perturbation

FORMAT_VERSION = 1
"""Of `meta/failsight`; a run of another version is refused by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeMeta:
    """One row of `meta/failsight/episodes.parquet`."""

    ticket: int
    """Position in the plan of the run; the episode index after sealing."""
    seed: int
    task: str
    episode: int
    condition: str
    instruction: str
    horizon: int
    outcome: Outcome
    length: int
    policy: str
    """Fingerprint of the policy."""
    wall_s: float
    error: str = ""
    video: bool = False

    @property
    def key(self) -> EpisodeKey:
        """The key that replays it."""
        perturbations = Perturbation.parse(self.condition)
        return EpisodeKey(seed=self.seed, task=self.task, episode=self.episode, perturbations=perturbations)

    @property
    def scored(self) -> bool:
        """Whether it counts as success or failure."""
        return self.outcome in (Outcome.SUCCESS, Outcome.FAILURE)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> EpisodeMeta:
        """From a JSON object or table row."""
        return EpisodeMeta(**{**data, "outcome": Outcome(data["outcome"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMeta:
    """`meta/failsight/run.json`: everything that decides a run, and the shapes of its flattened tensors."""

    action_spec: ActionSpec
    observation_spec: ObservationSpec
    policy: str
    sim: str
    plan: tuple[EpisodeKey, ...]
    shapes: dict[str, tuple[int, ...]]
    """True shapes of `policy.chunk`, `policy.samples`, ..., which are stored flat."""
    versions: dict[str, str] = field(default_factory=dict)
    note: str = ""
    video_share: float = 0.0
    signals: tuple[SignalColumn, ...] = ()
    """Columns of `signal` in a run whose signals were computed elsewhere; empty: failsight computes them."""

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        data = {
            "format_version": FORMAT_VERSION,
            **{name: getattr(self, name) for name in ("policy", "sim", "note", "video_share", "versions")},
            "action_spec": self.action_spec.as_dict(),
            "observation_spec": self.observation_spec.as_dict(),
            "signals": [column.as_dict() for column in self.signals],
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "plan": [{**asdict(key), "perturbations": key.condition} for key in self.plan],
        }
        write_text_atomic(path, json.dumps(data, indent=1))

    @staticmethod
    def read(path: Path) -> RunMeta:
        """Raises EpisodeDataError when it is missing, unreadable or of another version."""
        if not path.is_file():
            raise EpisodeDataError(
                f"{path.parents[2]} is not a failsight run: it has no meta/failsight/run.json. "
                "Make one with: failsight collect --out FOLDER"
            )
        try:
            data = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise EpisodeDataError(f"{path} is not whole JSON ({error}); the run was damaged.") from error
        if data.get("format_version") != FORMAT_VERSION:
            raise EpisodeDataError(
                f"{path} has format version {data.get('format_version')}; this failsight reads version "
                f"{FORMAT_VERSION}. Collect again, or install the failsight that wrote it."
            )
        plan = tuple(
            EpisodeKey(**{**key, "perturbations": Perturbation.parse(key["perturbations"])}) for key in data["plan"]
        )
        return RunMeta(
            action_spec=ActionSpec.from_dict(data["action_spec"]),
            observation_spec=ObservationSpec.from_dict(data["observation_spec"]),
            policy=data["policy"],
            sim=data["sim"],
            plan=plan,
            shapes={name: tuple(shape) for name, shape in data["shapes"].items()},
            versions=data["versions"],
            note=data["note"],
            video_share=data["video_share"],
            signals=tuple(SignalColumn.from_dict(column) for column in data.get("signals", [])),
        )


def write_text_atomic(path: Path, text: str) -> None:
    """Write beside `path`, then rename. Raises StorageError when the disk refuses."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text)
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error.strerror}. Free space or choose another folder.") from error
