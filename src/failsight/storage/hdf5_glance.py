"""A first look at HDF5 files in a process of its own: damage can make the library loop or crash, which no caller can catch.

What the look finds is thrown away (the caller finds it again and says it better); only a process that dies counts.
Where processes cannot be forked, nothing is looked at.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from failsight.core.errors import EpisodeDataError

MOST_CPU_S = 2
"""Processor seconds per file, at least one less in whole seconds; waiting for a slow disk does not count."""


def require_harmless(paths: Sequence[Path], look: Callable[[Path], object]) -> None:
    """Refuse the first file during which the looking process dies or spins. Raises EpisodeDataError naming it."""
    if "fork" not in multiprocessing.get_all_start_methods() or multiprocessing.current_process().daemon:
        return
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_look_at, args=(paths, look, sending), daemon=True)
    child.start()
    sending.close()
    try:
        for path in paths:
            try:
                receiving.recv_bytes()
            except EOFError:
                raise EpisodeDataError(
                    f"{path} makes the HDF5 library crash or run without end; it is damaged. Delete it or record it again."
                ) from None
    finally:
        child.kill()
        child.join()
        receiving.close()


def _look_at(paths: Sequence[Path], look: Callable[[Path], object], sending: Connection) -> None:
    import resource  # not on every system, like fork

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the last words of a crash
    for path in paths:
        used = sum(os.times()[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + MOST_CPU_S, resource.RLIM_INFINITY))
        with suppress(Exception):
            look(path)
        sending.send_bytes(b"alive")
