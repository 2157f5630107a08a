"""Small fakes for tests of the machinery: a point that must be moved to the origin, and policies for it.

They stand in for a simulator where physics does not matter (loop, recorder, pool, monitor); no result is made with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.errors import FailsightError
from failsight.core.rng import keyed_rng
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.state import pack_state, unpack_state
from failsight.core.types import Array, EpisodeKey, Event, Observation, PolicyOutput, Task
from failsight.monitor.monitor import RiskMonitor
from failsight.monitor.senses import Senses
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import TriggerRule
from failsight.signals.bank import SignalBank

ACTIONS = ActionSpec(
    dimensions=(
        *(Dimension(name=f"d{a}", kind="delta", unit="m", scale=0.05, hold=0.0) for a in "xyz"),
        Dimension(name="gripper", kind="binary", unit="sign", hold=None),
    ),
    frame="world",
    rate_hz=20.0,
    gripper_closed_sign=1,
)
OBSERVATIONS = ObservationSpec(state=("x_m", "y_m", "z_m", "gripper_open01"), cameras=(("agent", 16, 16),))
HORIZON = 30


def make_monitor(predictor: Predictor, rule: TriggerRule, threshold: float) -> RiskMonitor:
    """A monitor of the point policy."""
    bank = SignalBank(ACTIONS, OBSERVATIONS)
    senses = Senses(bank.names, ACTIONS)
    return RiskMonitor(predictor, bank, rule, Thresholds.fixed(threshold), senses=senses)


class PointSim:
    """A point 1 m from the origin; success within 5 cm. Perturbation `wind:L` pushes it away."""

    action_spec, observation_spec = ACTIONS, OBSERVATIONS

    def __init__(self, images: str = "on_demand") -> None:
        self._key: EpisodeKey | None = None
        self._at, self._step, self._pending = np.zeros(3), 0, list[Event]()

    @property
    def task(self) -> Task:
        """The running task."""
        return self.tasks()[0]

    @property
    def key(self) -> EpisodeKey:
        """The running episode."""
        if self._key is None:
            raise FailsightError("The point has no episode yet; call reset() first.")
        return self._key

    def tasks(self) -> Sequence[Task]:
        """One task."""
        return [Task(id="home", suite="point", instruction="go home", horizon=HORIZON)]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Place the point."""
        self._key = (options or {}).get("key") or EpisodeKey(seed=seed or 0, task="home", episode=0)
        direction = keyed_rng(*self.key.parts, "start").standard_normal(3)
        self._at, self._step, self._pending = direction / np.linalg.norm(direction), 0, []
        return {"observation.state": self._state()}, {}

    def step(self, action: Array) -> tuple[dict[str, Array], float, bool, bool, dict[str, Any]]:
        """Move."""
        level = sum(p.level for p in self.key.perturbations if p.kind == "wind")
        wind = 0.01 * level * keyed_rng(*self.key.parts, "wind", self._step).standard_normal(3)
        self._at = self._at + 0.05 * np.clip(np.asarray(action[:3], np.float64), -1, 1) + wind
        self._step += 1
        success = bool(np.linalg.norm(self._at) < 0.05)
        if success:
            self._pending.append(Event(step=self._step - 1, kind="grasp", subject="home"))
        truncated = not success and self._step >= HORIZON
        return (
            {"observation.state": self._state()},
            float(success),
            success,
            truncated,
            {"success": success, "is_success": success},
        )

    def _state(self) -> Array:
        return np.array([*self._at, 1.0], np.float32)

    def observe(self) -> dict[str, Array]:
        """State and a picture of how far it is."""
        shade = np.uint8(np.clip(255 * np.linalg.norm(self._at), 0, 255))
        return {
            "observation.state": self._state(),
            "observation.images.agent": np.full((16, 16, 3), shade, np.uint8),
        }

    def events(self) -> list[Event]:
        """Events since the last call."""
        pending, self._pending = self._pending, []
        return pending

    def save_state(self) -> bytes:
        """Position, step and key."""
        key = self.key
        values = {"key": key.as_dict(), "step": self._step}
        return pack_state(values, {"at": self._at})

    def load_state(self, state: bytes) -> None:
        """Inverse of `save_state`."""
        values, arrays = unpack_state(state)
        self._key = EpisodeKey.from_dict(values["key"])
        self._at, self._step, self._pending = arrays["at"], values["step"], []

    def close(self) -> None:
        """Nothing to free."""


class PointPolicy:
    """Heads home; `bad_from` makes its output NaN from that step on."""

    action_spec, observation_spec = ACTIONS, OBSERVATIONS
    fingerprint, execute = "point", 3

    def __init__(self, bad_from: int | None = None, hidden: int = 8) -> None:
        self._bad_from, self._hidden = bad_from, hidden
        self._key, self._instruction = EpisodeKey(seed=0, task="home", episode=0), ""

    def reset(self, task: Task, key: EpisodeKey) -> None:
        """Remember the key of the noise and the instruction."""
        self._key, self._instruction = key, task.instruction

    def reinstruct(self, instruction: str) -> None:
        """Remembered, and not heeded: there is one place to go."""
        self._instruction = instruction

    def infer(self, observation: Observation, step: int) -> PolicyOutput:
        """Five steps toward the origin, eight noisy samples, a hidden state that tells the distance."""
        at = observation["observation.state"][:3]
        rng = keyed_rng(*self._key.parts, "samples", step)
        direction = -at / max(float(np.linalg.norm(at)), 1e-6)
        chunk = np.tile(np.array([*direction, -1.0], np.float32), (5, 1))
        samples = chunk + 0.1 * rng.standard_normal((8, 5, 4)).astype(np.float32)
        hidden = np.resize(np.array([*at, 1.0]), self._hidden).astype(np.float16)
        if self._bad_from is not None and step >= self._bad_from:
            chunk = np.full_like(chunk, np.nan)
        return PolicyOutput(chunk=chunk, hidden=hidden, samples=samples.astype(np.float16))

    def save_state(self) -> bytes:
        """Key and instruction."""
        return pack_state({"key": self._key.as_dict(), "instruction": self._instruction}, {})

    def load_state(self, state: bytes) -> None:
        """Inverse of `save_state`."""
        values, _ = unpack_state(state)
        self._key, self._instruction = EpisodeKey.from_dict(values["key"]), values["instruction"]
