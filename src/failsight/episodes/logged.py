"""Storing episodes that somebody else recorded: signals and hidden states per step, no actions, no images.

The result is a run like any other: fit, evaluate, label and report read it through the same `Run`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_count, read_number, read_text, require_distinct
from failsight.core.specs import ObservationSpec, SignalColumn, no_actions
from failsight.core.staging import staged_folder
from failsight.core.types import Array, EpisodeKey, Outcome
from failsight.episodes.meta import EpisodeMeta, RunMeta
from failsight.episodes.recorder import episode_folder, to_arrow
from failsight.episodes.seal import seal


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEpisode:
    """One episode of T steps as another system logged it."""

    task: str
    instruction: str
    seed: int
    """Seed or number of its initial state."""
    number: int
    """Number of the episode within its task."""
    success: bool
    signals: Array
    """(T, S) float32; NaN where a value is missing."""
    hidden: Array | None = None
    """(T, D) float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What a reader found: the columns and the episodes."""

    columns: tuple[SignalColumn, ...]
    episodes: tuple[LoggedEpisode, ...]
    notes: tuple[str, ...] = ()
    """What the reader had to assume or leave out, one sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOrigin:
    """What a log does not say about itself."""

    policy: str
    suite: str
    horizon: int | None = None
    """Steps after which an unfinished episode is a timeout; None: the longest episode of the log."""
    rate_hz: float = 0.0
    """Steps per second; 0 when unknown."""

    def __post_init__(self) -> None:
        read_text(self.policy, "--policy")
        read_text(self.suite, "--benchmark")
        read_number(self.rate_hz, "--rate-hz", 0.0, 1e6)
        if self.horizon is not None:
            read_count(self.horizon, "--horizon", 1)


def read_instruction(value: Any, task: str, where: str) -> str:
    """The text a policy was told; the task's name where a log has none or an empty one."""
    if value is None or (isinstance(value, str | np.str_) and not value.strip()):
        return task
    return read_text(value, where)


def notes_about(episodes: Sequence[LoggedEpisode]) -> list[str]:
    """What a person should know about the episodes before anything is fitted on them."""
    notes = []
    single = sum(len(e.signals) == 1 for e in episodes)
    if single:
        notes.append(f"{single} episodes have a single step")
    seen = Counter(blake2b(e.signals.tobytes()).digest() for e in episodes if len(e.signals) > 1)
    copies = sum(count - 1 for count in seen.values())
    if copies:
        notes.append(
            f"{copies} episodes have exactly the signals of another one; copies on both sides of a split make every "
            "figure too good"
        )
    return notes


def store_log(log: Log, root: Path, origin: LogOrigin, tick: Callable[[], None] | None = None) -> RunMeta:
    """Write the log as a sealed run at `root`; nothing is left behind when it fails.

    Raises EpisodeDataError when the log is empty, uneven, or longer than its horizon; StorageError when `root` exists
    or cannot be written.
    """
    with staged_folder(root) as build:
        return write_log(log, build, origin, tick)


def write_log(log: Log, build: Path, origin: LogOrigin, tick: Callable[[], None] | None = None) -> RunMeta:
    """Write the log as a sealed run into an empty folder. Raises EpisodeDataError as `store_log` does."""
    check_log(log)
    longest = max(len(e.signals) for e in log.episodes)
    horizon = origin.horizon or longest
    if longest > horizon:
        raise EpisodeDataError(f"An episode has {longest} steps, more than the horizon {horizon}; correct --horizon.")
    meta = _meta(log, origin)
    meta.write(build / "meta/failsight/run.json")
    for ticket, episode in enumerate(log.episodes):
        _write(episode_folder(build, ticket), ticket, episode, meta, horizon)
        if tick is not None:
            tick()
    seal(build)
    return meta


def check_log(log: Log) -> None:
    """Raises EpisodeDataError when the episodes of a log do not fit together."""
    if not log.episodes:
        raise EpisodeDataError("The log holds no episode.")
    if not log.columns:
        raise EpisodeDataError("The log holds no signal.")
    sizes = {None if e.hidden is None else e.hidden.shape[1] for e in log.episodes}
    if len(sizes) > 1:
        found = ", ".join(sorted(str(size) for size in sizes))
        raise EpisodeDataError(
            f"Hidden states differ in size between episodes ({found}); import them as separate runs."
        )
    for e in log.episodes:
        lengths = {len(e.signals)} | ({len(e.hidden)} if e.hidden is not None else set())
        if e.signals.shape[1:] != (len(log.columns),) or len(lengths) > 1 or not len(e.signals):
            raise EpisodeDataError(
                f"Episode {e.number} of task {e.task} is empty or uneven: signals {e.signals.shape}, "
                f"hidden {None if e.hidden is None else e.hidden.shape}, {len(log.columns)} columns."
            )
    for task in dict.fromkeys(e.task for e in log.episodes):
        require_distinct((e.number for e in log.episodes if e.task == task), f"Task {task}", "episode")


def _meta(log: Log, origin: LogOrigin) -> RunMeta:
    first = log.episodes[0]
    shapes: dict[str, tuple[int, ...]] = {} if first.hidden is None else {"policy.hidden": (first.hidden.shape[1],)}
    return RunMeta(
        action_spec=no_actions(origin.rate_hz),
        observation_spec=ObservationSpec(state=(), cameras=()),
        policy=origin.policy,
        sim=origin.suite,
        plan=tuple(EpisodeKey(seed=e.seed, task=e.task, episode=e.number) for e in log.episodes),
        shapes=shapes,
        signals=log.columns,
        note="; ".join(("imported", *log.notes)),
        labeler="outcome",
    )


def _write(folder: Path, ticket: int, episode: LoggedEpisode, meta: RunMeta, horizon: int) -> None:
    folder.mkdir(parents=True)
    steps = len(episode.signals)
    columns = {"signal": to_arrow(episode.signals.astype(np.float32))}
    if episode.hidden is not None:
        with np.errstate(over="ignore"):  # an entry beyond float16 is stored as infinite and read as missing
            columns["policy.hidden"] = to_arrow(episode.hidden.astype(np.float16))
    last = np.arange(steps) == steps - 1
    columns["next.success"] = pa.array(last & episode.success)
    columns["next.done"] = pa.array(last)
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    with pa.OSFile(str(folder / "steps.arrows"), "wb") as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    row = EpisodeMeta(
        ticket=ticket,
        seed=episode.seed,
        task=episode.task,
        episode=episode.number,
        condition="none",
        instruction=episode.instruction,
        horizon=horizon,
        outcome=Outcome.SUCCESS if episode.success else Outcome.FAILURE,
        length=steps,
        policy=meta.policy,
        wall_s=0.0,
    )
    (folder / "events.json").write_text("[]")
    (folder / "episode.json").write_text(json.dumps(asdict(row)))


Reader = Callable[[Sequence[Path]], Log]
"""Reads the files of one format."""
