"""What changed while a robot was protected: alarms, blindness, decisions, what the guard did; one JSON line each.

A tick is written down when its trigger, blindness, decision or driver differs from the tick before, and whenever the action
that was sent is not the policy's, with what was seen. Memory is bounded; the file grows by what happens, not by ticks.
"""

from __future__ import annotations

import json
import math
from collections import deque
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from failsight.core.types import CONTINUE, SILENT, Array, Tick
from failsight.storage.disk import writing

_KEPT = 1000


class EventLog:
    """An `Observer` that keeps the last 1000 changes, and writes each to a file when it has one."""

    name, wants_images = "log", False

    def __init__(self, path: Path | None = None) -> None:
        """Raises StorageError when the file cannot be written."""
        self.lines: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        """Newest last."""
        self._path, self._last = path, ("", "", "", "", "")
        self._file: TextIO | None = None
        if path is not None:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("a", encoding="utf-8")

    def observe(self, tick: Tick) -> None:
        """Take in one tick. Raises StorageError for a full disk, which stops the robot like anything that breaks."""
        verdict, decision = tick.verdict or SILENT, tick.decision or CONTINUE
        now = ("on" if verdict.trigger else "", verdict.blind, str(decision.kind), tick.driver or "", tick.guard)
        planned = None if tick.step is None else tick.step.action
        if now == self._last and not _changed(planned, tick.action):
            return
        self._last = now
        self.note(
            step=tick.index,
            time_s=tick.time_s,
            trigger=verdict.trigger,
            p_fail=verdict.risk.p_fail,
            margin=verdict.margin,
            why=verdict.why,
            blind=verdict.blind,
            decision=str(decision.kind),
            reason=decision.reason,
            guard=tick.guard,
            driver=tick.driver,
            state=None if tick.step is None else tick.step.state,
            planned=planned,
            sent=tick.action,
        )

    def note(self, **what: Any) -> None:
        """Write one line. Raises StorageError."""
        line = {name: _plain(value) for name, value in what.items()}
        self.lines.append(line)
        if self._file is not None and self._path is not None:
            with writing(self._path):
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()


def _changed(planned: Array | None, sent: Array | None) -> bool:
    return planned is not None and (sent is None or not np.array_equal(planned, sent))


def _plain(value: Any) -> Any:
    """JSON has neither arrays nor NaN: unknown is null."""
    if isinstance(value, np.ndarray):
        return [_plain(float(entry)) for entry in value.ravel()]
    return None if isinstance(value, float) and not math.isfinite(value) else value
