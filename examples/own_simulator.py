"""Your own simulator: a hand on a table has to reach a cup while a draught it cannot see pushes it.

    failsight collect --sim examples.own_simulator:ENTRY --policy examples.own_policy:Reach --out runs/reach --trials 60 --mix default
    failsight fit runs/reach

One `SimEntry` says all that failsight has to know. `failsight.testing.checks.check_sim` tries whether it keeps its word
(equal keys give equal episodes; saving, loading and stepping again is exact).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from failsight.core.rng import keyed_rng
from failsight.core.sim_entry import SimEntry
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.state import pack_state, unpack_state
from failsight.core.types import EpisodeKey, Event, Task

ACTIONS = ActionSpec(
    dimensions=tuple(Dimension(name=f"d{axis}", kind="delta", unit="m", scale=0.02) for axis in "xy"),
    frame="table",
    rate_hz=10.0,
    gripper_closed_sign=1,
)
OBSERVATIONS = ObservationSpec(state=("x_m", "y_m", "cup_x_m", "cup_y_m"), cameras=(("above", 32, 32),))
HORIZON = 40
TASKS = {"left-cup": -0.3, "right-cup": 0.3}


class ReachEnv(gymnasium.Env):
    """A `gymnasium.Env` with dict observations, plus events and exact saving."""

    action_spec, observation_spec = ACTIONS, OBSERVATIONS

    def __init__(self, images: str = "on_demand") -> None:
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = spaces.Dict({"observation.state": spaces.Box(-2, 2, (4,), np.float32)})
        self._key = EpisodeKey(seed=0, task="left-cup", episode=0)
        self._hand, self._cup, self._wind, self._step = np.zeros(2), np.zeros(2), np.zeros(2), 0

    @property
    def task(self) -> Task:
        """The running task."""
        return next(task for task in self.tasks() if task.id == self._key.task)

    def tasks(self) -> list[Task]:
        """Everything that can be asked for."""
        return [
            Task(id=name, suite="reach", instruction=f"touch the {name.replace('-', ' ')}", horizon=HORIZON)
            for name in TASKS
        ]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start the episode of a key; everything random is drawn from it."""
        self._key = (options or {}).get("key") or EpisodeKey(seed=seed or 0, task="left-cup", episode=0)
        rng = keyed_rng(*self._key.parts, "start")
        self._hand, self._step = rng.uniform(-0.1, 0.1, 2), 0
        self._wind = np.array([rng.choice([-1.0, 1.0]), 0.0])
        self._cup = np.array([TASKS[self._key.task], 0.4]) + rng.uniform(-0.05, 0.05, 2)
        return self._state(), {}

    def step(self, action: np.ndarray):
        """Move the hand by up to 2 cm; the draught grows with the level of the perturbation."""
        level = sum(part.level for part in self._key.perturbations)
        draught = 0.002 * level * self._wind * (self._step >= 5)
        self._hand = self._hand + 0.02 * np.clip(np.asarray(action, np.float64), -1, 1) + draught
        self._step += 1
        success = bool(np.linalg.norm(self._hand - self._cup) < 0.02)
        late = not success and self._step >= HORIZON
        return self._state(), float(success), success, late, {"success": success, "is_success": success}

    def _state(self) -> dict[str, np.ndarray]:
        return {"observation.state": np.array([*self._hand, *self._cup], np.float32)}

    def observe(self) -> dict[str, np.ndarray]:
        """State and picture."""
        return {**self._state(), "observation.images.above": self.render()}

    def render(self) -> np.ndarray:
        """(32, 32, 3) uint8, seen from above."""
        picture = np.full((32, 32, 3), 200, np.uint8)
        for place, colour in ((self._cup, (200, 40, 40)), (self._hand, (30, 30, 30))):
            row, column = np.clip(((place + np.array([0.5, 0.3])) * 32).astype(int), 1, 30)[::-1]
            picture[row - 1 : row + 2, column - 1 : column + 2] = colour
        return picture

    def events(self) -> list[Event]:
        """Nothing here has contacts, so an episode is known by its outcome only."""
        return []

    def save_state(self) -> bytes:
        """All that `step` reads."""
        return pack_state({"key": self._key.as_dict(), "step": self._step}, self._arrays())

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"hand": self._hand, "cup": self._cup, "wind": self._wind}

    def load_state(self, state: bytes) -> None:
        """Inverse of `save_state`."""
        values, arrays = unpack_state(state)
        self._key, self._step = EpisodeKey.from_dict(values["key"]), values["step"]
        self._hand, self._cup, self._wind = arrays["hand"], arrays["cup"], arrays["wind"]


class Person:
    """Who takes over when called; leave it out where nobody can."""

    def act(self, sim: ReachEnv) -> np.ndarray:
        """Straight to the cup."""
        return np.clip((sim._cup - sim._hand) / 0.02, -1, 1).astype(np.float32)


ENTRY = SimEntry(
    make="examples.own_simulator:ReachEnv",
    operator="examples.own_simulator:Person",
    tasks=tuple(TASKS),
    kinds=("draught",),
    mixes={"default": {"none": 1.0, "draught:3": 1.0, "draught:5": 1.0}},
)
