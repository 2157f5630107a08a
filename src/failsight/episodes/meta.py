"""What is known about an episode and a run beside their steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.foreign import read_count, read_file_name, read_number, read_success
from failsight.core.specs import ActionSpec, ObservationSpec, SignalColumn
from failsight.core.types import EpisodeKey, Outcome, Perturbation
from failsight.storage.checksums import require_sealed
from failsight.storage.disk import write_bytes_atomic

FORMAT_VERSION = 1
"""Of `meta/failsight`; a run of another version is refused by name."""
WATCHED = "watched"
"""What stands for the simulator of a run that somebody else's loop made."""
_LOWEST = -(2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeMeta:
    """One row of `meta/failsight/episodes.parquet`."""

    ticket: int
    """Position in the plan of the run."""
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
    def from_dict(data: Mapping[str, Any], where: str) -> EpisodeMeta:
        """From a JSON object or table row found at `where`. Raises EpisodeDataError naming the field that is wrong."""
        try:
            fields: dict[str, Any] = {
                **{name: read_count(data[name], f"{where}: {name}") for name in ("ticket", "horizon", "length")},
                **{name: read_count(data[name], f"{where}: {name}", _LOWEST) for name in ("seed", "episode")},
                **{
                    name: _text(data[name], f"{where}: {name}")
                    for name in ("task", "condition", "instruction", "policy")
                },
                "outcome": Outcome(data["outcome"]),
                "wall_s": read_number(data["wall_s"], f"{where}: wall_s", 0.0),
                "error": _text(data.get("error", ""), f"{where}: error"),
                "video": read_success(data.get("video", False), f"{where}: video"),
            }
            return EpisodeMeta(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise EpisodeDataError(f"{where} is not an episode of a run ({_told(error)}).") from error


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
    bundle: str = ""
    """Digest of the bundle that judged while the run was made; empty: nobody did."""
    arm: str = ""
    """What acted on its alarms; empty: nothing did."""
    labeler: str = ""
    """Name of its label table; empty in runs that did not say so."""

    @property
    def has_actions(self) -> bool:
        """Whether its steps have states, actions and chunks; a log of signals may lack them."""
        return not self.signals or bool(self.action_spec.dimensions)

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        data = {
            "format_version": FORMAT_VERSION,
            **{
                name: getattr(self, name)
                for name in ("policy", "sim", "note", "video_share", "versions", "bundle", "arm", "labeler")
            },
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
            content = path.read_bytes()
            data = json.loads(content)
        except (OSError, ValueError) as error:
            raise EpisodeDataError(f"{path} is not whole JSON ({_told(error)}); the run was damaged.") from error
        require_sealed(path.parents[2], "meta/failsight/run.json", content)
        version = data.get("format_version") if isinstance(data, dict) else None
        if version != FORMAT_VERSION:
            raise EpisodeDataError(
                f"{path} has format version {version}; this failsight reads version "
                f"{FORMAT_VERSION}. Collect again, or install the failsight that wrote it."
            )
        try:
            return _run_meta(data, str(path))
        except (KeyError, TypeError, ValueError, AttributeError, FailsightError) as error:
            raise EpisodeDataError(f"{path} is damaged ({_told(error)}); restore it from a copy.") from error


def _run_meta(data: Mapping[str, Any], where: str) -> RunMeta:
    action_spec = ActionSpec.from_dict(data["action_spec"])
    read_number(action_spec.rate_hz, f"{where}: rate_hz", 0.0)
    return RunMeta(
        action_spec=action_spec,
        observation_spec=ObservationSpec.from_dict(data["observation_spec"]),
        policy=_text(data["policy"], f"{where}: policy"),
        sim=_text(data["sim"], f"{where}: sim"),
        plan=tuple(_key(key, f"{where}: plan[{i}]") for i, key in enumerate(data["plan"])),
        shapes={
            str(name): tuple(read_count(n, f"{where}: shapes.{name}", 1) for n in shape)
            for name, shape in data["shapes"].items()
        },
        versions={str(name): str(version) for name, version in data["versions"].items()},
        note=_text(data["note"], f"{where}: note"),
        video_share=read_number(data["video_share"], f"{where}: video_share", 0.0, 1.0),
        signals=tuple(SignalColumn.from_dict(column) for column in data.get("signals", [])),
        bundle=_text(data.get("bundle", ""), f"{where}: bundle"),
        arm=_text(data.get("arm", ""), f"{where}: arm"),
        labeler="" if data.get("labeler", "") == "" else read_file_name(data["labeler"], f"{where}: labeler"),
    )


def _key(data: Mapping[str, Any], where: str) -> EpisodeKey:
    return EpisodeKey(
        seed=read_count(data["seed"], f"{where}.seed", _LOWEST),
        task=_text(data["task"], f"{where}.task"),
        episode=read_count(data["episode"], f"{where}.episode", _LOWEST),
        perturbations=Perturbation.parse(_text(data["perturbations"], f"{where}.perturbations")),
    )


def _text(value: Any, where: str) -> str:
    """Text of our own writing, empty allowed."""
    if not isinstance(value, str):
        raise EpisodeDataError(f"{where}: expected text, found {value!r}.")
    return value


def _told(error: BaseException) -> str:
    text = f"no {error}" if isinstance(error, KeyError) else str(error)
    return (text.splitlines() or [type(error).__name__])[0].rstrip(".")[:300]


def write_text_atomic(path: Path, text: str) -> None:
    """Write beside `path`, then rename. Raises StorageError when the disk refuses; nothing half-written stays."""
    write_bytes_atomic(path, text.encode())
