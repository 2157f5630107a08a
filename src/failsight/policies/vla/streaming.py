"""A trained policy at run time: the `Policy` contract over any cell of the lattice.

What it remembers are the frames of earlier inferences with their step numbers. The window is chosen by
`frames.window_frames`, the function training uses; where no inference happened at a wanted step (somebody stopped the
robot, a tick was late) the latest one before it stands in. An inference therefore depends on the observation, its
step and what was seen at earlier steps, never on how often it was asked.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from failsight.core.errors import EpisodeDataError
from failsight.core.rng import keyed_rng
from failsight.core.state import pack_state, unpack_state
from failsight.core.types import Array, EpisodeKey, Observation, PolicyOutput, Task
from failsight.policies.vla.damage import damage
from failsight.policies.vla.design import VLAConfig
from failsight.policies.vla.discrete import DiscreteHead
from failsight.policies.vla.frames import window_frames
from failsight.policies.vla.model import VLAModel
from failsight.policies.vla.normalise import Normaliser, states_of
from failsight.policies.vla.store import fingerprint, load_model


class Frame(NamedTuple):
    """What is kept of one inference."""

    step: int
    memory: Tensor
    """policy-head: features (F,); interleaved: images (C, 3, H, W) uint8."""
    state: Tensor
    """(S,) normalised."""


class VLAPolicy:
    """See the module docstring."""

    def __init__(self, model: VLAModel, name: str = "") -> None:
        """`name`: the fingerprint."""
        torch.set_num_threads(1)
        self.model, self.fingerprint = model.eval(), name
        self.config: VLAConfig = model.config
        self.action_spec, self.observation_spec = self.config.action_spec, self.config.observation_spec
        self.execute = self.config.execute
        stats = self.config.statistics
        keep = np.array([d.kind == "binary" for d in self.action_spec.dimensions])
        self._actions = Normaliser(self.config.scheme, stats["action"], stats["clip"], stats["epsilon"], keep)
        self._states = states_of(self.config)
        self._memory: list[Frame] = []
        self._key: EpisodeKey | None = None
        self._instruction, self._reset = "", False

    @property
    def state_range(self) -> tuple[Array, Array]:
        """(S,), (S,): lowest and highest state of the training data."""
        table = self.config.statistics["state"]
        return np.array(table["min"], np.float32), np.array(table["max"], np.float32)

    @staticmethod
    def load(folder: str | Path, source: str | None = None) -> VLAPolicy:
        """From a checkpoint folder. Raises FailsightError when it is missing, damaged or of another type."""
        path = Path(folder)
        model = load_model(path, source)
        with damage(path / "config.json"):
            return VLAPolicy(model, fingerprint(path))

    def reset(self, task: Task, key: EpisodeKey) -> None:
        """Forget the episode before."""
        self._memory, self._key = [], key
        self._instruction, self._reset = task.instruction, False

    def reinstruct(self, instruction: str) -> None:
        """A new instruction in the middle of an episode: the prompt carries the reset token from now on."""
        self._instruction, self._reset = instruction, True

    def infer(self, observation: Observation, step: int) -> PolicyOutput:
        """One inference for the observation at control step `step`."""
        if self._key is None:
            raise EpisodeDataError("The policy has no task yet; call reset(task, key) first.")
        began = time.perf_counter()
        with torch.inference_mode():
            images, state = self._inputs(observation)
            self._memory = [frame for frame in self._memory if frame.step < step]
            if isinstance(self.model.head, DiscreteHead):
                acted = self.model.speak(images[None, None], state[None, None], [self._instruction], [self._reset])
                features = self._features(images[None], state[None])
            else:
                features = self._window(images, state, step)
                acted = self.model.act(features, self._noise(step))
            failure = self._foresee(features)
        chunk = self._physical(acted.chunk[0])
        considered = self._physical if acted.members is None else self._unclipped
        samples = None if acted.samples is None else considered(acted.samples[0])
        return PolicyOutput(
            chunk=chunk,
            hidden=features[0, -1].float().numpy(),
            samples=samples,
            members=None if acted.members is None else self._unclipped(acted.members[0]),
            failure=failure,
            latency_ms=(time.perf_counter() - began) * 1e3,
        )

    def _inputs(self, observation: Observation) -> tuple[Tensor, Tensor]:
        names = [f"observation.images.{name}" for name, _, _ in self.observation_spec.cameras]
        images = np.stack([observation[name] for name in names]).transpose(0, 3, 1, 2)
        state = self._states.forward(observation["observation.state"])
        return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(state)

    def _features(self, images: Tensor, states: Tensor) -> Tensor:
        """(W, C, 3, H, W), (W, S) -> (1, W, F)."""
        return self.model.features(images[None], states[None], [self._instruction], [self._reset]).acts

    def _window(self, images: Tensor, state: Tensor, step: int) -> Tensor:
        """Features of the frames seen now, (1, W, F)."""
        history = self.config.history
        if history.window == 1:
            return self._features(images[None], state[None])
        single = history.kind == "policy-head"
        memory = self._features(images[None], state[None])[0, 0] if single else images
        self._memory.append(Frame(step, memory, state))
        wanted, _ = window_frames(step, history.window, history.stride)
        steps = [frame.step for frame in self._memory]
        chosen = [self._memory[max(0, bisect_right(steps, want) - 1)] for want in wanted]
        oldest = chosen[0].step
        self._memory = [frame for frame in self._memory if frame.step >= oldest]
        stacked = torch.stack([frame.memory for frame in chosen])
        return stacked[None] if single else self._features(stacked, torch.stack([frame.state for frame in chosen]))

    def _noise(self, step: int) -> Tensor | None:
        if not self.config.head.draws:
            return None
        assert self._key is not None
        size = (1, self.config.head.samples, self.config.chunk * self.config.actions)
        return torch.from_numpy(keyed_rng(*self._key.parts, "flow", step).standard_normal(size, dtype=np.float32))

    def _foresee(self, features: Tensor) -> Array | None:
        if self.model.failure is None:
            return None
        said = self.model.failure(features[0, -1])
        steps = torch.expm1(said.left.clamp(0, 10)) * self.action_spec.rate_hz
        return np.array([torch.sigmoid(said.fails), steps, torch.sigmoid(said.replan)], np.float32)

    def _physical(self, chunk: Tensor) -> Array:
        """What may be executed."""
        return np.clip(self._unclipped(chunk), self.action_spec.low, self.action_spec.high).astype(np.float32)

    def _unclipped(self, chunk: Tensor) -> Array:
        """What was considered: the spread of an ensemble is measured before any limit cuts it."""
        return self._actions.backward(chunk.float().numpy())

    def save_state(self) -> bytes:
        """Random key, instruction and remembered frames."""
        values = {
            "key": None if self._key is None else self._key.as_dict(),
            "instruction": self._instruction,
            "reset": self._reset,
            "steps": [frame.step for frame in self._memory],
        }
        arrays = {f"memory{i}": frame.memory.numpy() for i, frame in enumerate(self._memory)}
        arrays |= {f"state{i}": frame.state.numpy() for i, frame in enumerate(self._memory)}
        return pack_state(values, arrays)

    def load_state(self, state: bytes) -> None:
        """Inverse of `save_state`."""
        values, arrays = unpack_state(state)
        self._key = None if values["key"] is None else EpisodeKey.from_dict(values["key"])
        self._instruction, self._reset = values["instruction"], values["reset"]
        self._memory = [
            Frame(step, torch.from_numpy(arrays[f"memory{i}"]), torch.from_numpy(arrays[f"state{i}"]))
            for i, step in enumerate(values["steps"])
        ]
