"""What a policy is familiar with: the wordings, first pictures, start states and motions of its successful episodes.

`failsight fit` learns it and keeps it in the bundle. Every cause has a number that says how far an episode is from the
familiar one, and a limit; the limits of all causes keep one promise together, see `workflows.familiar`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from failsight.causes.motion import Response
from failsight.causes.views import UsualView
from failsight.core.foreign import read_array, read_count, read_number, read_text
from failsight.core.types import Array

WORDING, START, SHAKING, SLIP, OPENED = "wording", "start", "shaking", "slip", "opened"
MOVED, COLOURS, GRAIN = "moved", "colours", "grain"
"""Causes of a camera; its name follows after a space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """An instruction that successful episodes were given."""

    text: str
    task: str
    episodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """First states."""

    mean: Array
    """(S,) float32."""
    scale: Array
    """(S,) float32 above 0: spread over episodes, or a thousandth of what the entry does in an episode."""

    def distance(self, state: Array) -> float:
        """Largest distance of an entry of (S,), in its scale."""
        return float(np.abs((state - self.mean) / self.scale).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Familiar:
    """See the module docstring."""

    wordings: tuple[Wording, ...]
    fixed: bool
    """Whether new wordings are so rare that one says something."""
    views: tuple[UsualView, ...]
    start: Start | None
    response: Response | None
    limits: Mapping[str, float]
    """Cause -> the number above which it is diagnosed; causes that cannot be told here are missing."""
    alpha: float
    """Share of ordinary episodes in which any cause but a wording may be diagnosed."""
    episodes: int
    """Ordinary episodes the limits were set on."""
    table: Mapping[str, str]
    """The user's own: other wording -> known wording."""

    @property
    def causes(self) -> tuple[str, ...]:
        """All that can be diagnosed."""
        return ((WORDING,) if self.fixed else ()) + tuple(self.limits)

    def view(self, camera: str) -> UsualView | None:
        """What that camera usually shows."""
        return next((view for view in self.views if view.camera == camera), None)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "wordings": [asdict(wording) for wording in self.wordings],
            "fixed": self.fixed,
            "views": [view.as_dict() for view in self.views],
            "start": None
            if self.start is None
            else {"mean": self.start.mean.tolist(), "scale": self.start.scale.tolist()},
            "response": None if self.response is None else self.response.as_dict(),
            "limits": dict(self.limits),
            "alpha": self.alpha,
            "episodes": self.episodes,
            "table": dict(self.table),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any], states: int, actions: int) -> Familiar:
        """Inverse of `as_dict`, for a robot of so many states and actions. Raises EpisodeDataError naming the key."""
        start, response = data["start"], data["response"]
        return Familiar(
            wordings=tuple(_wording(item, f"wordings[{i}]") for i, item in enumerate(data["wordings"])),
            fixed=bool(data["fixed"] is True),
            views=tuple(UsualView.from_dict(item, "views") for item in data["views"]),
            start=None if start is None else _start(start, states),
            response=None if response is None else Response.from_dict(response, "response", states, actions),
            limits={str(k): read_number(v, f"limits, {k}", 0.0) for k, v in data["limits"].items()},
            alpha=read_number(data["alpha"], "alpha", math.ulp(0.0), 1.0),
            episodes=read_count(data["episodes"], "episodes"),
            table={read_text(k, "table"): read_text(v, f"table, {k}") for k, v in data["table"].items()},
        )


def start_of(states: Sequence[Array]) -> Start:
    """From states (T, S) of successful episodes."""
    first = np.stack([episode[0] for episode in states]).astype(np.float64)
    moves = np.concatenate(states).astype(np.float64).std(0)
    scale = np.maximum(np.maximum(first.std(0), 1e-3 * moves), 1e-9)
    return Start(mean=first.mean(0).astype(np.float32), scale=scale.astype(np.float32))


def _start(data: Mapping[str, Any], states: int) -> Start:
    scale = read_array(data["scale"], "start, scale", (states,))
    return Start(mean=read_array(data["mean"], "start, mean", (states,)), scale=np.maximum(scale, 1e-12))


def _wording(data: Mapping[str, Any], where: str) -> Wording:
    return Wording(
        text=read_text(data["text"], f"{where}, text"),
        task=read_text(data["task"], f"{where}, task"),
        episodes=read_count(data["episodes"], f"{where}, episodes", 1),
    )
