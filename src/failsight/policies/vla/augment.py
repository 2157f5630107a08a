"""Augmentation of a batch, keyed by (seed, step) and by each window's number, so that it never depends on batching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from failsight.core.demonstrations import DemonstrationSet
from failsight.core.rng import keyed_rng
from failsight.core.types import Array
from failsight.policies.vla.batch import WindowBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """Strengths; 0 switches one off. One draw per window: all its frames change alike."""

    shift_px: int = 3
    """Random shift of the image, edges repeated (RoboVLMs pads 10 of 224)."""
    crop: float = 0.0
    """Largest share cut off each side before scaling back."""
    gain: float = 0.2
    tint: float = 0.08
    offset: float = 0.06
    action_noise: float = 0.0
    """Deviation added to continuous targets, in normalised units."""
    state_noise: float = 0.02
    state_dropout: float = 0.1
    """Chance that a window's state is blanked, so that the policy does not lean on it alone."""
    paraphrase: float = 0.5
    """Chance of another wording, where the data set has a table."""
    reset: float = 0.05
    """Chance of the prompt-reset token where nobody re-instructed, so that it is known and does no harm."""

    def __call__(self, batch: WindowBatch, data: DemonstrationSet, seed: Sequence[int], binary: Array) -> WindowBatch:
        """The augmented batch; images become float in [0, 1]."""
        rngs = [keyed_rng("augment", *seed, int(row)) for row in batch.rows]
        images = torch.stack([self._image(x.float() / 255.0, rng) for x, rng in zip(batch.images, rngs, strict=True)])
        states = torch.stack([self._state(x, rng) for x, rng in zip(batch.states, rngs, strict=True)])
        texts = [self._text(text, data, rng) for text, rng in zip(batch.texts, rngs, strict=True)]
        resets = [was or rng.random() < self.reset for was, rng in zip(batch.resets, rngs, strict=True)]
        target = batch.target
        if self.action_noise:
            noise = np.stack([rng.standard_normal(batch.target.shape[1:], np.float32) for rng in rngs])
            noise[..., binary] = 0.0
            target = target + self.action_noise * torch.from_numpy(noise)
        return batch._replace(images=images, states=states, texts=texts, resets=resets, target=target)

    def _image(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        flat = x.flatten(0, 1)
        side = flat.shape[-1]
        if self.shift_px:
            pad = self.shift_px
            dy, dx = (int(v) for v in rng.integers(0, 2 * pad + 1, 2))
            flat = F.pad(flat, (pad,) * 4, mode="replicate")[..., dy : dy + x.shape[-2], dx : dx + side]
        if self.crop:
            top, bottom, left, right = (int(v * self.crop * side) for v in rng.random(4))
            cut = flat[..., top : x.shape[-2] - bottom, left : side - right]
            flat = F.interpolate(cut, x.shape[-2:], mode="bilinear", antialias=True)
        gain = 1 + self.gain * (2 * rng.random() - 1)
        tint = torch.from_numpy((1 + self.tint * (2 * rng.random(3, np.float32) - 1)) * gain).float()[:, None, None]
        flat = (flat * tint + self.offset * (2 * rng.random() - 1)).clamp(0, 1)
        return flat.view(x.shape)

    def _state(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        if rng.random() < self.state_dropout:
            return torch.zeros_like(x)
        return x + self.state_noise * torch.from_numpy(rng.standard_normal(tuple(x.shape), np.float32))

    def _text(self, text: str, data: DemonstrationSet, rng: np.random.Generator) -> str:
        others = data.phrasings.get(text, ())
        if others and rng.random() < self.paraphrase:
            return others[int(rng.integers(len(others)))]
        return text
