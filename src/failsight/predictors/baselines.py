"""What every headline must beat: the clock and the task's failure rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from failsight.core.rng import keyed_rng
from failsight.core.types import FAILURE_TYPES, Array, Risk
from failsight.predictors.missing import present


class ClockPredictor:
    """P(fail | still running at step t), from training lengths; knows nothing but the time."""

    name = "clock"
    hidden_size = 0

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: `rate` (T,) failure rate among training episodes still running at step t."""
        self.arrays = dict(arrays)
        self.reset("")

    @staticmethod
    def fit(lengths: Sequence[int], failed: Sequence[bool]) -> ClockPredictor:
        """Failure rate of the episodes still running, with one pseudo-episode of each outcome."""
        length, fail = np.array(lengths), np.array(failed)
        steps = np.arange(max(lengths))
        running = (length[None] > steps[:, None]).sum(1)
        failing = ((length[None] > steps[:, None]) & fail[None]).sum(1)
        return ClockPredictor({"rate": ((failing + 1) / (running + 2)).astype(np.float32)})

    def reset(self, task: str) -> None:
        """Back to step 0."""
        self._step = 0

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Risk from the elapsed time."""
        rate = self.arrays["rate"]
        p_fail = float(rate[min(self._step, len(rate) - 1)])
        self._step += 1
        return Risk(p_fail=p_fail, type=np.full(len(FAILURE_TYPES), p_fail / 4))

    def save_state(self) -> dict[str, Array]:
        """`step` ()."""
        return {"step": np.array(self._step)}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it."""
        self._step = int(state["step"])


class GroupRates(NamedTuple):
    """Failure rates per group, shrunken by two pseudo-episodes of the base rate."""

    base: float
    groups: dict[str, float]

    def of(self, group: str) -> float:
        """The base rate for an unknown group."""
        return self.groups.get(group, self.base)


def group_rates(groups: Array, failed: Array) -> GroupRates:
    """(failures + 2 base) / (episodes + 2) of every group of episodes (N,)."""
    fail = np.asarray(failed, float)
    base = float(fail.mean())
    rates = {}
    for group in np.unique(groups):
        mine = fail[groups == group]
        rates[str(group)] = float((mine.sum() + 2 * base) / (len(mine) + 2))
    return GroupRates(base, rates)


class TaskPriorPredictor:
    """The failure rate of the task in training (or of the condition, see `Detector.by`), the same at every step."""

    name = "task-prior"
    hidden_size = 0

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: one () array per task under `task.<id>`, and `base` () for unknown tasks."""
        self.arrays = dict(arrays)
        self.reset("")

    @staticmethod
    def fit(tasks: Sequence[str], failed: Sequence[bool]) -> TaskPriorPredictor:
        """Shrunken rates (failures + 2 base) / (episodes + 2)."""
        rates = group_rates(np.array(tasks), np.array(failed))
        arrays = {"base": np.array(rates.base, np.float32)}
        arrays |= {f"task.{task}": np.array(rate, np.float32) for task, rate in rates.groups.items()}
        return TaskPriorPredictor(arrays)

    def reset(self, task: str) -> None:
        """Look up the task."""
        self._p_fail = float(self.arrays.get(f"task.{task}", self.arrays["base"]))

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """The same risk at every step."""
        return Risk(p_fail=self._p_fail, type=np.full(len(FAILURE_TYPES), self._p_fail / 4))

    def save_state(self) -> dict[str, Array]:
        """`p_fail` (); nothing beyond the task."""
        return {"p_fail": np.array(self._p_fail)}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it."""
        self._p_fail = float(state["p_fail"])


class TaskClockPredictor:
    """Elapsed steps in units of the task's median successful length: what a late alarm knows without looking."""

    name = "task-clock"
    hidden_size = 0

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: `usual.<task>` () and `usual` () for unknown tasks, steps."""
        self.arrays = dict(arrays)
        self.reset("")

    @staticmethod
    def fit(tasks: Sequence[str], lengths: Sequence[int], failed: Sequence[bool]) -> TaskClockPredictor:
        """Median successful length per task; a task without a success takes the overall one."""
        names, steps, good = np.array(tasks), np.array(lengths), ~np.array(failed, bool)
        usual = float(np.median(steps[good])) if good.any() else float(np.median(steps))
        arrays = {"usual": np.array(usual)}
        for task in np.unique(names[good]):
            arrays[f"usual.{task}"] = np.array(float(np.median(steps[good & (names == task)])))
        return TaskClockPredictor(arrays)

    def reset(self, task: str) -> None:
        """Back to step 0."""
        self._step, self._usual = 0, float(self.arrays.get(f"usual.{task}", self.arrays["usual"]))

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Elapsed share of the usual length."""
        self._step += 1
        return Risk(p_fail=float("nan"), evidence=self._step / self._usual)

    def save_state(self) -> dict[str, Array]:
        """`step` ()."""
        return {"step": np.array(self._step)}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore it, after `reset` with the task of the episode."""
        self._step = int(state["step"])


class RandomPredictor:
    """A random number per step, keyed by the signals themselves: the floor of every table."""

    name = "random"
    hidden_size = 0

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Args: arrays: `seed` ()."""
        self.arrays = dict(arrays)
        self.reset("")

    def reset(self, task: str) -> None:
        """No memory."""

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Uniform in [0, 1)."""
        draw = keyed_rng("random", int(self.arrays["seed"]), present(np.asarray(signals)).tobytes().hex()).random()
        return Risk(p_fail=float("nan"), evidence=float(draw))

    def save_state(self) -> dict[str, Array]:
        """No memory."""
        return {}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """No memory."""
