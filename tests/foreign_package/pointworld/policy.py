"""Heads home without feeling the wind; its hidden state is where it is."""

import numpy as np

from failsight.core.rng import keyed_rng
from failsight.core.state import pack_state, unpack_state
from failsight.core.types import EpisodeKey, PolicyOutput
from pointworld.sim import ACTIONS, OBSERVATIONS, STEP_M


class Homing:
    action_spec, observation_spec = ACTIONS, OBSERVATIONS
    fingerprint, execute = "homing-1", 4

    def __init__(self):
        self._key, self._instruction = EpisodeKey(seed=0, task="home", episode=0), ""

    def reset(self, task, key):
        self._key, self._instruction = key, task.instruction

    def reinstruct(self, instruction):
        self._instruction = instruction

    def infer(self, observation, step):
        at = observation["observation.state"]
        noise = 0.1 * keyed_rng(*self._key.parts, "samples", step).standard_normal((6, 4, 2))
        chunk = np.tile((-at / (4 * STEP_M)).clip(-1, 1), (4, 1)).astype(np.float32)
        samples = (chunk + noise).astype(np.float16)
        return PolicyOutput(chunk=chunk, hidden=at.astype(np.float16), samples=samples)

    def save_state(self):
        return pack_state({"key": self._key.as_dict(), "instruction": self._instruction}, {})

    def load_state(self, state):
        values, _ = unpack_state(state)
        self._key, self._instruction = EpisodeKey.from_dict(values["key"]), values["instruction"]
