"""Demonstration frames in memory-mapped arrays: what the tiny policy is trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from failsight.core.errors import EpisodeDataError
from failsight.core.textfiles import read_json
from failsight.core.types import Array
from failsight.policies.vla.config import TinyConfig
from failsight.policies.vla.network import Batch

ARRAYS = ("images", "state", "chunk", "aux", "task", "episode")


class Frames(NamedTuple):
    """N demonstration frames."""

    images: Array
    """(N, C, 3, H, W) uint8."""
    state: Array
    """(N, S) float32."""
    chunk: Array
    """(N, H, A) float32, what the noise-free expert does from here."""
    aux: Array
    """(N, 11) float32."""
    task: Array
    """(N,) int32 index into the instructions."""
    episode: Array
    """(N,) int32."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all arrays, pictures and tasks included."""
        digest = hashlib.blake2b(digest_size=8)
        for name, array in zip(ARRAYS, self, strict=True):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data.cast("B"))
        return digest.hexdigest()


def save_frames(frames: Frames, instructions: Sequence[Sequence[str]], folder: Path) -> None:
    """Write one `.npy` per array and the instructions (one list of phrasings per task)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(ARRAYS, frames, strict=True):
        np.save(folder / f"{name}.npy", array)
    (folder / "instructions.json").write_text(json.dumps([list(i) for i in instructions]))


def load_frames(folder: Path) -> tuple[Frames, list[list[str]]]:
    """Memory-mapped frames and instructions. Raises EpisodeDataError when the folder is incomplete."""
    missing = [name for name in ARRAYS if not (folder / f"{name}.npy").is_file()]
    if missing:
        raise EpisodeDataError(f"{folder} lacks {', '.join(missing)}; collect the demonstrations again.")
    frames = Frames(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS))
    texts = read_json(folder / "instructions.json")
    if not isinstance(texts, list) or not all(isinstance(wordings, list) for wordings in texts):
        raise EpisodeDataError(f"{folder / 'instructions.json'} does not hold one list of wordings per task.")
    return frames, texts


class Batches:
    """Random augmented batches: photometric gain, tint and offset, state noise and dropout, varied wording."""

    def __init__(self, frames: Frames, instructions: Sequence[Sequence[str]], config: TinyConfig) -> None:
        self._frames, self._config = frames, config
        phrasings = max(len(i) for i in instructions)
        self._tokens = torch.stack(
            [
                torch.stack([torch.from_numpy(config.tokens(i[p % len(i)])) for p in range(phrasings)])
                for i in instructions
            ]
        )
        self._images = torch.from_numpy(np.array(frames.images))
        state = (frames.state - np.array(config.state_mean)) / np.array(config.state_std)
        self._state = torch.from_numpy(state.astype(np.float32))
        self._chunk = torch.from_numpy(np.array(frames.chunk))
        self._aux = torch.from_numpy(np.array(frames.aux))
        self._task = torch.from_numpy(frames.task.astype(np.int64))
        self._episode = torch.from_numpy(frames.episode.astype(np.int64))
        generator = torch.Generator().manual_seed(7)
        self._weights = torch.poisson(torch.ones(int(self._episode.max()) + 1, config.members), generator=generator)

    def draw(self, rows: Tensor, augment: bool) -> tuple[Batch, Tensor, Tensor, Tensor]:
        """Inputs, chunk (B, H, A), aux (B, 11) and bootstrap weights (B, M) of those rows."""
        images = self._images[rows].float().div_(255.0)
        state, phrase = self._state[rows], torch.zeros(len(rows), dtype=torch.int64)
        if augment:
            images = _photometric(images)
            keep = torch.rand(len(rows), 1) > 0.1
            state = (state + 0.02 * torch.randn_like(state)) * keep
            phrase = torch.randint(self._tokens.shape[1], (len(rows),))
        tokens = self._tokens[self._task[rows], phrase]
        weights = self._weights[self._episode[rows]]
        return Batch(images, tokens, state), self._chunk[rows], self._aux[rows], weights


def _photometric(images: Tensor) -> Tensor:
    shape = (len(images), 1, 1, 1, 1)
    gain = 1 + 0.25 * (2 * torch.rand(shape) - 1)
    tint = 1 + 0.10 * (2 * torch.rand(len(images), 1, 3, 1, 1) - 1)
    offset = 0.08 * (2 * torch.rand(shape) - 1)
    return images.mul_(gain * tint).add_(offset).clamp_(0, 1)
