"""What a checkpoint's `config.json` says: network sizes, vocabulary, statistics, specs, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import Array
from failsight.policies.vla.words import WORD_RULE, vocabulary_of, words

MAX_TOKENS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyConfig:
    """The `tiny` network: two convolution towers with FiLM, five tokens, a small transformer, two action heads."""

    type: str = "tiny"
    vocabulary: tuple[str, ...]
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    state_mean: tuple[float, ...]
    state_std: tuple[float, ...]
    chunk: int = 10
    execute: int = 5
    """Actions of a chunk that are executed before the next inference."""
    samples: int = 8
    """Chunks drawn by the flow head per inference."""
    members: int = 4
    """Heads of the ensemble."""
    width: int = 160
    layers: int = 3
    heads: int = 4
    keypoints: int = 48
    flow_width: int = 256
    flow_steps: int = 6
    word_rule: int = WORD_RULE
    """How an instruction is cut into words; 1 in checkpoints that do not say."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Command, seed, data fingerprint and success table that made the weights."""

    @property
    def actions(self) -> int:
        """A."""
        return len(self.action_spec.dimensions)

    def tokens(self, instruction: str) -> Array:
        """(MAX_TOKENS,) int64: 0 pads, 1 is an unknown word.

        Punctuation and case are dropped; words beyond MAX_TOKENS are ignored.
        """
        index = {word: i + 2 for i, word in enumerate(self.vocabulary)}
        ids = [index.get(word, 1) for word in words(instruction, self.word_rule)][:MAX_TOKENS]
        return np.array(ids + [0] * (MAX_TOKENS - len(ids)), np.int64)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        data = asdict(self)
        data["action_spec"] = self.action_spec.as_dict()
        data["observation_spec"] = self.observation_spec.as_dict()
        return data

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> TinyConfig:
        """Inverse of `as_dict`."""
        values = {"word_rule": 1, **data}
        values["action_spec"] = ActionSpec.from_dict(data["action_spec"])
        values["observation_spec"] = ObservationSpec.from_dict(data["observation_spec"])
        for name in ("vocabulary", "state_mean", "state_std"):
            values[name] = tuple(data[name])
        return TinyConfig(**values)


__all__ = ["MAX_TOKENS", "TinyConfig", "vocabulary_of"]
