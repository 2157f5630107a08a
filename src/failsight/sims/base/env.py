"""What every simulator here does alike: the key of an episode, its spaces, its guards, the shape of what it returns.

A subclass sets the class attribute `title`, calls `_prepare` when it is made, and writes what is its own: `tasks`,
`reset`, `step`, `observe`, saving and loading.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from failsight.core.errors import EpisodeDataError, FailsightError, UnknownNameError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.state import pack_state, unpack_state
from failsight.core.types import Array, EpisodeKey, Event, Perturbation, Task

Images = Literal["always", "on_demand"]
"""`on_demand`: `step` and `reset` return the state alone, `observe` draws."""


def step_info(success: bool, collision: bool = False) -> dict[str, Any]:
    """`success` holds the goal now; `is_success` is the same under the name Gymnasium's libraries and LeRobot look for."""
    return {"success": success, "is_success": success, "collision": collision}


class EpisodeEnv(gymnasium.Env[dict[str, Array], Array]):
    """A `Sim` with one episode at a time."""

    title = ""
    """How messages call it."""
    action_spec: ActionSpec
    observation_spec: ObservationSpec

    def _prepare(self, images: Images, state_bound: float) -> None:
        """Spaces from the specs; `state_bound`: no entry of the state is beyond it."""
        self._images = images
        low, high = self.action_spec.low, self.action_spec.high
        self.action_space = spaces.Box(low, high, low.shape, np.float32)
        size = (len(self.observation_spec.state),)
        entries: dict[str, spaces.Space[Any]] = {
            "observation.state": spaces.Box(-state_bound, state_bound, size, np.float32)
        }
        if images == "always":
            for name, height, width in self.observation_spec.cameras:
                entries[f"observation.images.{name}"] = spaces.Box(0, 255, (height, width, 3), np.uint8)
        space: spaces.Space[Any] = spaces.Dict(entries)
        self.observation_space = space
        self._key: EpisodeKey | None = None
        self._done = True
        self._pending = list[Event]()

    @property
    def key(self) -> EpisodeKey:
        """The key of the running episode. Raises FailsightError before the first reset."""
        if self._key is None:
            raise FailsightError(f"{self.title} has no episode yet; call reset() first.")
        return self._key

    @property
    @abstractmethod
    def task(self) -> Task:
        """The task of the running episode."""

    @abstractmethod
    def tasks(self) -> Sequence[Task]:
        """Every task."""

    @abstractmethod
    def observe(self) -> dict[str, Array]:
        """State and camera images of the present moment."""

    @abstractmethod
    def state(self) -> Array:
        """(S,) float32 proprioception."""

    def _asked(
        self, seed: int | None, options: dict[str, Any] | None, task: str, perturbations: tuple[Perturbation, ...] = ()
    ) -> EpisodeKey:
        """The key in `options`, else episode 0 of `task` under `seed`, which is drawn when there is none."""
        key: EpisodeKey | None = (options or {}).get("key")
        if key is not None:
            return key
        drawn = int(self.np_random.integers(2**31)) if seed is None else seed
        return EpisodeKey(seed=drawn, task=task, episode=0, perturbations=perturbations)

    def _checked(self, action: Array, kind: npt.DTypeLike) -> Array:
        """(A,) a copy of the action. Raises EpisodeDataError for a non-finite one, FailsightError after the end."""
        values, size = np.array(action, kind), len(self.action_spec.dimensions)
        if values.shape != (size,) or not np.isfinite(values).all():
            raise EpisodeDataError(f"{self.title} needs {size} finite action values; it got {values}.")
        if self._done:
            raise FailsightError("This episode has ended; call reset() before the next step.")
        return values

    def _observation(self) -> dict[str, Array]:
        return self.observe() if self._images == "always" else {"observation.state": self.state()}

    def events(self) -> list[Event]:
        """Events since the last call."""
        pending, self._pending = self._pending, []
        return pending


class ReplayedEnv(EpisodeEnv):
    """A benchmark whose state cannot be taken out: its key and actions are kept, and loading plays them again.

    It knows no perturbations and reports no events.
    """

    def _prepare(self, images: Images, state_bound: float) -> None:
        super()._prepare(images, state_bound)
        self._actions, self._success = list[Array](), False

    @abstractmethod
    def _advance(self, action: Array) -> None:
        """One tick of the benchmark: sets `_success`, appends to `_actions`."""

    def _begin(self, key: EpisodeKey) -> None:
        """Raises UnknownNameError for a perturbation."""
        if key.perturbations:
            raise UnknownNameError(f"{self.title} perturbation", key.perturbations[0].kind, ())
        self._key = key

    def step(self, action: Array) -> tuple[dict[str, Array], float, bool, bool, dict[str, Any]]:
        """One control tick of `action` (A,), clipped to [-1, 1].

        Raises EpisodeDataError for an action that is not finite or of another length, FailsightError after the end.
        """
        self._advance(np.clip(self._checked(action, np.float32), -1, 1))
        truncated = not self._success and len(self._actions) >= self.task.horizon
        self._done = self._success or truncated
        return self._observation(), float(self._success), self._success, truncated, step_info(self._success)

    def save_state(self) -> bytes:
        """Key and actions so far."""
        actions = np.array(self._actions, np.float32).reshape(-1, len(self.action_spec.dimensions))
        return pack_state({"key": asdict(self.key), "done": self._done}, {"actions": actions})

    def load_state(self, state: bytes) -> None:
        """Start over and act the same."""
        values, arrays = unpack_state(state)
        self.reset(options={"key": EpisodeKey(**{**values["key"], "perturbations": ()})})
        for action in arrays["actions"]:
            self._advance(action)
        self._done = values["done"]
