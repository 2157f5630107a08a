"""Worker processes that each build their own simulator and policy once, and survive each other's deaths.

One compute thread per worker; a worker whose parent dies exits by itself; tickets of a worker that died are handed out
again, at most twice.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from failsight.core.errors import FailsightError

T = TypeVar("T")
R = TypeVar("R")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_MAX_DEATHS = 3
_bench: Any = None


def _initialize(build: Callable[[], Any]) -> None:
    global _bench
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; workers finish their ticket
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        threading.Thread(target=lambda: (wait_for([sentinel]), os._exit(1)), daemon=True).start()
    threadpool_limits(1)
    _bench = build()


def _call(work: Callable[[Any, T], R], ticket: T) -> R:
    return work(_bench, ticket)


def run_pool(
    build: Callable[[], Any], work: Callable[[Any, T], R], tickets: Sequence[T], workers: int
) -> Iterator[tuple[T, R]]:
    """Yield (ticket, result) as they finish; `build()` makes what `work(bench, ticket)` needs, once per process.

    Both must be picklable. Raises whatever `work` raises, and FailsightError when workers keep dying.
    """
    pending = list(tickets)
    deaths = 0
    saved = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        while pending:
            before = len(pending)
            try:
                yield from _round(build, work, pending, workers)
            except BrokenProcessPool as error:
                deaths = deaths + 1 if len(pending) == before else 0
                if deaths >= _MAX_DEATHS:
                    raise FailsightError(
                        f"Worker processes died {deaths} times without finishing an episode; "
                        "run with --workers 1 to see why, or free memory."
                    ) from error
    finally:
        for name, value in saved.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _round(
    build: Callable[[], Any], work: Callable[[Any, T], R], pending: list[T], workers: int
) -> Iterator[tuple[T, R]]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_initialize, initargs=(build,))
    try:
        running: dict[Future[R], T] = {}
        queue = list(pending)
        while queue or running:
            while queue and len(running) < 2 * workers:
                ticket = queue.pop(0)
                running[pool.submit(_call, work, ticket)] = ticket
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                ticket = running.pop(future)
                result = future.result()
                pending.remove(ticket)
                yield ticket, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
