"""Trained policies driven in a simulator, as they are and with something taken away from them.

The changes tell memory from understanding: a policy that succeeds without its instruction does not listen, one that
succeeds with a frozen past does not use it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from failsight.core.contracts import Policy
from failsight.core.errors import EpisodeDataError, FailsightError, UnknownNameError
from failsight.core.state import pack_state, unpack_state
from failsight.core.textfiles import read_json_lines
from failsight.core.types import EpisodeKey, Observation, Outcome, Perturbation, PolicyOutput, Task
from failsight.evaluation.intervals import Estimate, proportion
from failsight.runtime.bench import Bench
from failsight.runtime.loop import run_episode
from failsight.runtime.pool import run_pool
from failsight.runtime.streak import ErrorStreak
from failsight.workflows.wiring import make_policy, make_sim

Change = Literal["none", "blank-instruction", "swapped-instruction", "frozen-history"]
CHANGES: tuple[Change, ...] = ("none", "blank-instruction", "swapped-instruction", "frozen-history")
BLANK = "go"
"""An instruction that says nothing about the task."""


def require_change(name: str) -> None:
    """Raises UnknownNameError with the nearest changes."""
    if name not in CHANGES:
        raise UnknownNameError("change of a policy", name, CHANGES)


class Drive(NamedTuple):
    """One closed-loop episode."""

    key: EpisodeKey
    success: bool
    collided: bool
    side: str
    """Navigation: on which side the obstacle was passed, empty when it was not."""
    steps: int
    error: str = ""
    """Why it errored; empty: it did not. An errored drive is neither a success nor a failure."""


class Altered:
    """A policy that is told something else, or remembers nothing but the present."""

    def __init__(self, policy: Policy, change: Change, other: Callable[[Task], str]) -> None:
        """`other`: the instruction of another task, for `swapped-instruction`. Raises UnknownNameError."""
        require_change(change)
        self._policy, self._change, self._other = policy, change, other
        self.action_spec, self.observation_spec = policy.action_spec, policy.observation_spec
        self.fingerprint, self.execute = f"{policy.fingerprint}-{change}", policy.execute

    def reset(self, task: Task, key: EpisodeKey) -> None:
        """Start an episode with the instruction of this change."""
        if self._change == "blank-instruction":
            task = replace(task, instruction=BLANK)
        elif self._change == "swapped-instruction":
            task = replace(task, instruction=self._other(task))
        self._task, self._key, self._said = task, key, ""
        self._policy.reset(task, key)

    def reinstruct(self, instruction: str) -> None:
        """Pass it on, unless the instruction is what was taken away."""
        if self._change not in ("blank-instruction", "swapped-instruction"):
            self._said = instruction
            self._policy.reinstruct(instruction)

    def infer(self, observation: Observation, step: int) -> PolicyOutput:
        """One inference; with a frozen history every frame of the window is the present one."""
        if self._change == "frozen-history":
            self._policy.reset(self._task, self._key)
            if self._said:
                self._policy.reinstruct(self._said)
        return self._policy.infer(observation, step)

    def save_state(self) -> bytes:
        """The policy's state, and the episode a frozen history starts again."""
        values = {"task": asdict(self._task), "key": self._key.as_dict(), "said": self._said}
        return pack_state(values, {"policy": np.frombuffer(self._policy.save_state(), np.uint8)})

    def load_state(self, state: bytes) -> None:
        """Inverse of `save_state`."""
        values, arrays = unpack_state(state)
        self._task, self._key = Task(**values["task"]), EpisodeKey.from_dict(values["key"])
        self._said = values["said"]
        self._policy.load_state(arrays["policy"].tobytes())


def closed_loop(
    checkpoint: Path | str,
    sim: str,
    keys: Sequence[EpisodeKey],
    workers: int,
    change: Change = "none",
    progress: Callable[[int], None] = lambda done: None,
    keep: Path | None = None,
) -> list[Drive]:
    """Drive every episode of `keys`, in their order.

    `keep`: a JSON lines file; drives of the same policy, simulator and change in it are not made again.

    Raises UnknownNameError for a change that does not exist, which would change nothing.
    """
    require_change(change)
    build = partial(_bench, sim, str(checkpoint), change)
    stamp = {"policy": make_policy(str(checkpoint)).fingerprint, "sim": sim, "change": change}
    drives = {drive.key: drive for drive in _kept(keep, stamp) if drive.key in set(keys)}
    for count in range(1, len(drives) + 1):
        progress(count)
    streak = ErrorStreak()
    for key, drive in run_pool(build, _drive, [key for key in keys if key not in drives], workers):
        drives[key] = drive
        streak.saw(Outcome.ERRORED if drive.error else None, drive.error)
        if keep is not None:
            _keep(keep, stamp, drive)
        progress(len(drives))
    return [drives[key] for key in keys]


def _keep(path: Path, stamp: Mapping[str, str], drive: Drive) -> None:
    key = {
        "seed": drive.key.seed,
        "task": drive.key.task,
        "episode": drive.key.episode,
        "condition": drive.key.condition,
    }
    row = {
        **stamp,
        **key,
        "success": drive.success,
        "collided": drive.collided,
        "side": drive.side,
        "steps": drive.steps,
        "error": drive.error,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(row) + "\n")


def _kept(path: Path | None, stamp: Mapping[str, str]) -> Iterator[Drive]:
    """What the file holds of this policy, simulator and change. Raises EpisodeDataError for a damaged line."""
    if path is None or not path.is_file():
        return
    for number, row in read_json_lines(path):
        try:
            if all(row[name] == value for name, value in stamp.items()):
                yield _drive_from(row)
        except (KeyError, TypeError, ValueError, FailsightError) as error:
            raise EpisodeDataError(f"{path} is damaged at line {number}; delete it and run again.") from error


def _drive_from(row: Mapping[str, Any]) -> Drive:
    """Inverse of `_keep`."""
    perturbations = Perturbation.parse(row["condition"])
    key = EpisodeKey(seed=row["seed"], task=row["task"], episode=row["episode"], perturbations=perturbations)
    return Drive(key, row["success"], row["collided"], row["side"], row["steps"], row.get("error", ""))


def _bench(sim: str, policy: str, change: Change) -> Bench:
    env, plain = make_sim(sim), make_policy(policy)
    others = other_instructions(list(env.tasks()))
    return Bench(env, Altered(plain, change, lambda task: others[task.id]) if change != "none" else plain)


def other_instructions(tasks: Sequence[Task]) -> dict[str, str]:
    """For every task the instruction of the next one that is worded differently."""
    found = {}
    for i, task in enumerate(tasks):
        later = [*tasks[i + 1 :], *tasks[:i]]
        found[task.id] = next((t.instruction for t in later if t.instruction != task.instruction), task.instruction)
    return found


def _drive(bench: Bench, key: EpisodeKey) -> Drive:
    loop = bench.loop()
    with suppress(Exception):  # the loop has stopped, latched and kept the reason; the next one resets the simulator
        run_episode(loop, key)
    trace = loop.trace
    hit = any(event.kind == "contact" for event in trace.events)
    side = next((event.other for event in trace.events if event.kind == "passed"), "")
    return Drive(key, trace.outcome == Outcome.SUCCESS, hit, side, len(trace.kinds), trace.error)


def whole(drives: Sequence[Drive]) -> list[Drive]:
    """Those that did not error."""
    return [drive for drive in drives if not drive.error]


def success_of(drives: Sequence[Drive]) -> Estimate:
    """Success rate with its Wilson interval, of the drives that did not error."""
    some = whole(drives)
    return proportion(sum(drive.success for drive in some), len(some))


def collided(drives: Sequence[Drive]) -> Estimate:
    """Share of episodes in which anything was hit, of those that did not error."""
    some = whole(drives)
    return proportion(sum(drive.collided for drive in some), len(some))


def obeyed(drives: Sequence[Drive]) -> Estimate:
    """Navigation: share that passed the obstacle on the side their task asks for, among those that passed it."""
    passed = [drive for drive in whole(drives) if drive.side]
    return proportion(sum(drive.key.task.endswith(drive.side) for drive in passed), len(passed))


def by_task(drives: Sequence[Drive]) -> Mapping[str, Estimate]:
    """Success rate per task."""
    groups: dict[str, list[Drive]] = {}
    for drive in drives:
        groups.setdefault(drive.key.task, []).append(drive)
    return {task: success_of(group) for task, group in sorted(groups.items())}
