"""Which windows a training step takes: a function of (seed, step), so that resuming and splitting change nothing."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from failsight.core.errors import UnknownNameError
from failsight.core.rng import keyed_rng
from failsight.core.types import Array
from failsight.policies.vla.batch import WindowBatch
from failsight.policies.vla.model import DRAWS
from failsight.training.options import Sampling
from failsight.training.windows import Windows


class Plan(NamedTuple):
    """How batches are drawn."""

    sampling: Sampling
    batch: int
    """Windows per process and micro-step."""
    accumulate: int
    processes: int
    seed: int


def rows_of(plan: Plan, count: int, step: int, micro: int, rank: int) -> Array:
    """(batch,) windows of this process.

    All processes draw the same global batch and take their slice, so P processes of batch b are one of batch P * b.
    Raises UnknownNameError for a sampling that does not exist.
    """
    if plan.sampling not in get_args(Sampling):
        raise UnknownNameError("sampling", plan.sampling, get_args(Sampling))
    size = plan.batch * plan.processes
    if plan.sampling == "random":
        rows = keyed_rng("rows", plan.seed, step, micro).integers(count, size=size)
    else:
        rows = ((step * plan.accumulate + micro) * size + np.arange(size)) % count
    return np.asarray(rows[rank * plan.batch : (rank + 1) * plan.batch])


def flow_draws(rows: Array, seed: int, step: int, window: int, size: int) -> tuple[Tensor, Tensor]:
    """Noise (D, B, W, H*A) and times (D, B, W, 1), keyed by step and window."""
    noise, times = [], []
    for row in rows:
        rng = keyed_rng("flow", seed, step, int(row))
        noise.append(rng.standard_normal((DRAWS, window, size), np.float32))
        times.append(rng.random((DRAWS, window, 1), np.float32))
    return torch.from_numpy(np.stack(noise, 1)), torch.from_numpy(np.stack(times, 1))


class Ready(NamedTuple):
    """A prepared micro-batch."""

    batch: WindowBatch
    draws: tuple[Tensor, Tensor] | None


class Loader:
    """Prepares batches in a thread, two ahead, and measures how long training waits for them."""

    def __init__(self, windows: Windows, plan: Plan, rank: int, flow: tuple[int, int] | None) -> None:
        """`flow`: (window, chunk size) when the head needs draws."""
        self._windows, self._plan, self._rank, self._flow = windows, plan, rank, flow
        self.waited_s = 0.0

    def prepare(self, step: int, micro: int) -> Ready:
        """The micro-batch of a step, in this thread."""
        rows = rows_of(self._plan, len(self._windows), step, micro, self._rank)
        batch = self._windows.batch(rows, (self._plan.seed, step, micro))
        draws = None
        if self._flow is not None:
            draws = flow_draws(rows, self._plan.seed, step * self._plan.accumulate + micro, *self._flow)
        return Ready(batch, draws)

    def steps(self, first: int, last: int) -> Iterator[list[Ready]]:
        """Micro-batches of every step from `first` up to `last`."""
        ahead: queue.Queue[list[Ready] | BaseException] = queue.Queue(maxsize=2)
        stop = threading.Event()

        def fill() -> None:
            try:
                for step in range(first, last):
                    item = [self.prepare(step, micro) for micro in range(self._plan.accumulate)]
                    while not stop.is_set():
                        try:
                            ahead.put(item, timeout=0.2)
                            break
                        except queue.Full:
                            continue
                    if stop.is_set():
                        return
            except BaseException as error:
                ahead.put(error)

        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        try:
            for _ in range(first, last):
                began = time.perf_counter()
                item = ahead.get()
                self.waited_s += time.perf_counter() - began
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()
