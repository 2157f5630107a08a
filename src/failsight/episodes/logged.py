"""Storing episodes that somebody else recorded: signals, hidden states, states, actions and chunks per step; no images.

The result is a run like any other: fit, evaluate, label and report read it through the same `Run`. Without signals but
with actions it is what our own runs are: failsight computes the signals.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_count, read_number, read_text, require_distinct
from failsight.core.specs import Dimension, ObservationSpec, SignalColumn, no_actions
from failsight.core.staging import staged_folder
from failsight.core.types import Array, EpisodeKey, Outcome, PolicyOutput, Step
from failsight.episodes.meta import EpisodeMeta, RunMeta
from failsight.episodes.recorder import episode_folder, to_arrow
from failsight.episodes.seal import seal

_PARTS = ("signals", "hidden", "states", "actions", "chunks", "samples")
_SHAPED = ("policy.chunk", "policy.hidden", "policy.samples")


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
    """(T, S) float32; NaN where a value is missing; S may be 0 where there are actions."""
    hidden: Array | None = None
    """(T, D) float16."""
    states: Array | None = None
    """(T, P) float32 proprioception before each action."""
    actions: Array | None = None
    """(T, A) float32 executed actions."""
    chunks: Array | None = None
    """(T, H, A) float32 chunk in force; None: the action alone."""
    samples: Array | None = None
    """(T, K, H, A) float16 drawn chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What a reader found: the columns and the episodes."""

    columns: tuple[SignalColumn, ...]
    episodes: tuple[LoggedEpisode, ...]
    notes: tuple[str, ...] = ()
    """What the reader had to assume or leave out, one sentence each."""
    actions: tuple[Dimension, ...] = ()
    """What the actions of all episodes mean; empty: they have none."""
    states: tuple[str, ...] = ()
    """Names of the state entries."""


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
    seen = Counter(_content(e) for e in episodes if len(e.signals) > 1)
    copies = sum(count - 1 for count in seen.values())
    if copies:
        what = "signals" if episodes[0].signals.shape[1] else "actions"
        notes.append(
            f"{copies} episodes have exactly the {what} of another one; copies on both sides of a split make every "
            "figure too good"
        )
    return notes


def _content(episode: LoggedEpisode) -> bytes:
    """Digest of what an episode is judged by."""
    values = episode.signals if episode.signals.shape[1] or episode.actions is None else episode.actions
    return blake2b(values.tobytes()).digest()


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
        _write(episode_folder(build, ticket), ticket, episode, log, meta, horizon)
        if tick is not None:
            tick()
    seal(build)
    return meta


def check_log(log: Log) -> None:
    """Raises EpisodeDataError when the episodes of a log do not fit together."""
    if not log.episodes:
        raise EpisodeDataError("The log holds no episode.")
    if not log.columns and not log.actions:
        raise EpisodeDataError("The log holds no signal and no actions; there is nothing to judge an episode by.")
    sizes = {None if e.hidden is None else e.hidden.shape[1] for e in log.episodes}
    if len(sizes) > 1:
        found = ", ".join(sorted(str(size) for size in sizes))
        raise EpisodeDataError(
            f"Hidden states differ in size between episodes ({found}); import them as separate runs."
        )
    for e in log.episodes:
        _check_episode(e, log)
    for task in dict.fromkeys(e.task for e in log.episodes):
        require_distinct((e.number for e in log.episodes if e.task == task), f"Task {task}", "episode")


def _check_episode(e: LoggedEpisode, log: Log) -> None:
    parts = {name: getattr(e, name) for name in _PARTS if getattr(e, name) is not None}
    if e.signals.shape[1:] != (len(log.columns),) or len({len(p) for p in parts.values()}) > 1 or not len(e.signals):
        told = ", ".join(f"{name} {part.shape}" for name, part in parts.items())
        raise EpisodeDataError(
            f"Episode {e.number} of task {e.task} is empty or uneven: {told}, {len(log.columns)} columns."
        )
    first, entries = log.episodes[0], (len(log.actions), len(log.states))
    found = tuple(0 if part is None else part.shape[1] for part in (e.actions, e.states))
    same = all(
        (a is None) == (b is None) and (a is None or b is None or a.shape[1:] == b.shape[1:])
        for a, b in ((getattr(e, name), getattr(first, name)) for name in ("chunks", "samples"))
    )
    if found != entries or not same:
        raise EpisodeDataError(
            f"Episode {e.number} of task {e.task} has {found[0]} action and {found[1]} state entries, the log "
            f"{entries[0]} and {entries[1]}; or its chunks or samples have another shape. A log has one."
        )


def _meta(log: Log, origin: LogOrigin) -> RunMeta:
    columns = step_columns(log.episodes[0], log)
    shapes = {name: columns[name].shape[1:] for name in _SHAPED if name in columns}
    return RunMeta(
        action_spec=replace(no_actions(origin.rate_hz), dimensions=log.actions),
        observation_spec=ObservationSpec(state=log.states, cameras=()),
        policy=origin.policy,
        sim=origin.suite,
        plan=tuple(EpisodeKey(seed=e.seed, task=e.task, episode=e.number) for e in log.episodes),
        shapes=shapes,
        signals=log.columns,
        note="; ".join(("imported", *log.notes)),
        labeler="outcome",
    )


def step_columns(episode: LoggedEpisode, log: Log) -> dict[str, Array]:
    """Column of a run -> (T, ...) values, tensors in their true shapes."""
    columns = {"signal": episode.signals.astype(np.float32)} if log.columns else {}
    if episode.actions is not None:
        chunks = episode.actions[:, None] if episode.chunks is None else episode.chunks
        cursors = cursors_of(chunks)
        columns |= {
            **({} if episode.states is None else {"observation.state": episode.states}),
            "action": episode.actions,
            "policy.chunk": chunks,
            "policy.cursor": cursors,
            "policy.replan": cursors == 0,
            "policy.latency_ms": np.zeros(len(cursors), np.float32),
        }
    for name in ("hidden", "samples"):
        values = getattr(episode, name)
        if values is not None:
            with np.errstate(over="ignore"):  # an entry beyond float16 is stored as infinite and read as missing
                columns[f"policy.{name}"] = values.astype(np.float16)
    return columns


def steps_of(episode: LoggedEpisode, log: Log) -> list[Step]:
    """The steps of an episode with actions as a monitor would have seen them."""
    columns = step_columns(episode, log)
    cursors, steps = columns["policy.cursor"], list[Step]()
    for t, cursor in enumerate(cursors.tolist()):
        if cursor == 0:
            samples = None if episode.samples is None else episode.samples[t]
            hidden = None if episode.hidden is None else episode.hidden[t]
            output = PolicyOutput(chunk=columns["policy.chunk"][t], samples=samples, hidden=hidden)
        state = np.zeros(0, np.float32) if episode.states is None else episode.states[t]
        action = output.chunk[cursor]
        steps.append(Step(index=t, state=state, action=action, output=output, cursor=cursor, replan=cursor == 0))
    return steps


def cursors_of(chunks: Array) -> Array:
    """(T,) position in the chunk in force: (T, H, A) chunks that stay the same are executed one action after the other."""
    cursors = np.zeros(len(chunks), np.int64)
    for t in range(1, len(chunks)):
        if np.array_equal(chunks[t], chunks[t - 1]):
            cursors[t] = (cursors[t - 1] + 1) % chunks.shape[1]
    return cursors


def _write(folder: Path, ticket: int, episode: LoggedEpisode, log: Log, meta: RunMeta, horizon: int) -> None:
    folder.mkdir(parents=True)
    steps = len(episode.signals)
    values = step_columns(episode, log)
    columns = {name: to_arrow(v if v.ndim == 1 else v.reshape(steps, -1)) for name, v in values.items()}
    last = np.arange(steps) == steps - 1
    if episode.actions is not None:
        columns["next.reward"] = pa.array((last & episode.success).astype(np.float32))
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
