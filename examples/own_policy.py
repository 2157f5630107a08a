"""Your own policy: whatever turns an observation into a chunk of actions.

    failsight collect --sim examples.own_simulator:ENTRY --policy examples.own_policy:Reach --out runs/reach

Hidden state and samples are optional; the more a policy shows, the more a monitor sees. `failsight.testing.checks` holds
the checks for it (equal keys give equal actions; a saved state goes on exactly).
"""

from __future__ import annotations

import numpy as np

from examples.own_simulator import ACTIONS, OBSERVATIONS
from failsight.core.rng import keyed_rng
from failsight.core.state import pack_state, unpack_state
from failsight.core.types import EpisodeKey, Observation, PolicyOutput, Task


class Reach:
    """Goes to where it believes the cup is, and believes it less surely the farther away it is."""

    action_spec, observation_spec = ACTIONS, OBSERVATIONS
    fingerprint = "reach-1"
    execute = 4

    def __init__(self) -> None:
        self._key, self._instruction = EpisodeKey(seed=0, task="left-cup", episode=0), ""

    def reset(self, task: Task, key: EpisodeKey) -> None:
        """A new episode: its random numbers are drawn from its key."""
        self._key, self._instruction = key, task.instruction

    def reinstruct(self, instruction: str) -> None:
        """Another instruction in the middle of the episode."""
        self._instruction = instruction

    def infer(self, observation: Observation, step: int) -> PolicyOutput:
        """Eight drawn chunks of eight actions; the first is executed."""
        hand, cup = np.split(np.asarray(observation["observation.state"], np.float64), 2)
        rng = keyed_rng(*self._key.parts, "policy", step)
        away = float(np.linalg.norm(cup - hand))
        believed = cup + 0.1 * away * rng.standard_normal((8, 1, 2))
        chunks = np.clip(np.repeat(believed - hand, 8, axis=1) / 0.08, -1, 1).astype(np.float32)
        return PolicyOutput(chunk=chunks[0], samples=chunks, hidden=np.array([*hand, *cup, away]))

    def save_state(self) -> bytes:
        """All that `reset` sets."""
        return pack_state({"key": self._key.as_dict(), "instruction": self._instruction}, {})

    def load_state(self, state: bytes) -> None:
        """Inverse of `save_state`."""
        values, _ = unpack_state(state)
        self._key, self._instruction = EpisodeKey.from_dict(values["key"]), values["instruction"]
