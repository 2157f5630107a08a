"""A task's instruction as a vector, without a language model: signed feature hashing of its words and word pairs.

Stands in for the sentence embeddings that published detectors condition on: instructions that share words are near one
another, and a new one needs no table. It knows nothing of meaning: `shut` and `close` are as far apart as any two words.
"""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.types import Array

_WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])|\d+")
"""Runs of letters (a capital starts a new one, so that names of tasks are read as words) or of digits."""


@runtime_checkable
class Instructed(Protocol):
    """A predictor that also wants the words of the task."""

    def instruct(self, text: str) -> None:
        """Called after `reset` and before the first step; without it, the instruction is unknown."""


def begin(predictor: Predictor, task: str, instruction: str) -> None:
    """Start an episode of any predictor: `reset`, and the instruction where one is wanted (else the task's name)."""
    predictor.reset(task)
    if isinstance(predictor, Instructed):
        predictor.instruct(instruction or task)


def words(text: str) -> list[str]:
    """Lower-case words of an instruction or of a task's name.

    >>> words("TurnOn_microwave 2")
    ['turn', 'on', 'microwave', '2']
    """
    return [word.lower() for word in _WORD.findall(text)]


def embed(text: str, size: int) -> Array:
    """(size,) float32 of length 1; zeros for a text without words."""
    vector = np.zeros(size)
    found = words(text)
    for term in (*found, *(" ".join(pair) for pair in pairwise(found))):
        digest = int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "little")
        vector[(digest >> 1) % size] += 1.0 if digest & 1 else -1.0
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)
