"""The trained network as a `Policy`: one observation per forward pass, so that results never depend on batching."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from failsight.core.errors import EpisodeDataError
from failsight.core.rng import keyed_rng
from failsight.core.state import pack_state, unpack_state
from failsight.core.types import Array, EpisodeKey, Observation, PolicyOutput, Task
from failsight.policies.vla.checkpoint import load_checkpoint
from failsight.policies.vla.network import Batch, TinyVLA
from failsight.policies.vla.normalise import moments


class TinyPolicy:
    """Memoryless; the executed chunk is the ensemble mean, the flow samples show what else it considered."""

    def __init__(self, network: TinyVLA, fingerprint: str) -> None:
        torch.set_num_threads(1)
        self._network = network.eval()
        self.config = network.config
        self.action_spec = self.config.action_spec
        self.observation_spec = self.config.observation_spec
        self.execute = self.config.execute
        self.fingerprint = fingerprint
        self._mean = np.array(self.config.state_mean, np.float32)
        self._std = np.array(self.config.state_std, np.float32)
        self._key: EpisodeKey | None = None
        self.reinstruct("")

    @property
    def state_range(self) -> tuple[Array, Array]:
        """(S,), (S,): three standard deviations around the mean of the training states, whose ends are not kept."""
        return self._mean - 3 * self._std, self._mean + 3 * self._std

    @staticmethod
    def load(folder: str | Path) -> TinyPolicy:
        """From a checkpoint folder. Raises FailsightError when it is missing or not of this type."""
        network, fingerprint = load_checkpoint(Path(folder))
        return TinyPolicy(network, fingerprint)

    def reset(self, task: Task, key: EpisodeKey) -> None:
        """Tokenise the instruction once per episode."""
        self._key = key
        self.reinstruct(task.instruction)

    def reinstruct(self, instruction: str) -> None:
        """From now on the network reads this instruction."""
        self._instruction = instruction
        self._tokens = torch.from_numpy(self.config.tokens(instruction))[None]

    def infer(self, observation: Observation, step: int) -> PolicyOutput:
        """One inference; flow noise is keyed by episode and step."""
        if self._key is None:
            raise EpisodeDataError("The policy has no task yet; call reset(task, key) first.")
        start = time.perf_counter()
        noise = keyed_rng(*self._key.parts, "flow", step).standard_normal(
            (self.config.samples, self.config.chunk * self.config.actions), dtype=np.float32
        )
        with torch.inference_mode():
            query, hidden = self._network.encode(self._batch(observation))
            members = self._network.chunks(query)[0]
            samples = self._network.sample(query, torch.from_numpy(noise))
        chunk = members.mean(0).clamp(-1, 1).numpy()
        return PolicyOutput(
            chunk=chunk,
            hidden=hidden[0].numpy(),
            samples=samples.clamp(-2, 2).numpy(),
            members=members.numpy(),
            latency_ms=(time.perf_counter() - start) * 1e3,
        )

    def _batch(self, observation: Observation) -> Batch:
        names = [f"observation.images.{name}" for name, _, _ in self.observation_spec.cameras]
        images = np.stack([observation[name] for name in names]).transpose(0, 3, 1, 2)
        state = (observation["observation.state"] - self._mean) / self._std
        return Batch(
            torch.from_numpy(images.astype(np.float32) / 255.0)[None],
            self._tokens,
            torch.from_numpy(np.asarray(state, np.float32))[None],
        )

    def save_state(self) -> bytes:
        """Instruction and random key; the policy sees one frame at a time."""
        key = None if self._key is None else self._key.as_dict()
        return pack_state({"instruction": self._instruction, "key": key}, {})

    def load_state(self, state: bytes) -> None:
        """Inverse of `save_state`."""
        values, _ = unpack_state(state)
        self._key = None if values["key"] is None else EpisodeKey.from_dict(values["key"])
        if values["instruction"] != self._instruction:
            self.reinstruct(values["instruction"])


def state_statistics(states: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the tabletop's state entries, (N, S) -> (S,), (S,).

    The deviation is floored at 0.02 of their own units (metres, radians), which only suits that simulator.
    """
    mean, deviation = moments(states)
    return mean, np.maximum(deviation, 0.02)
