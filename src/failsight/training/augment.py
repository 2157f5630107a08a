"""Augmentation of a batch, keyed by (seed, step) and by each window's number, so that it never depends on batching."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from failsight.core.rng import keyed_rng
from failsight.core.types import Array
from failsight.episodes.demonstrations import DemonstrationSet
from failsight.policies.vla.batch import WindowBatch
from failsight.training.options import Augment


def augment(
    options: Augment, batch: WindowBatch, data: DemonstrationSet, seed: Sequence[int], binary: Array
) -> WindowBatch:
    """The augmented batch; images become float in [0, 1]. `binary` (A,): dimensions that get no noise."""
    rngs = [keyed_rng("augment", *seed, int(row)) for row in batch.rows]
    images = torch.stack([_image(options, x.float() / 255.0, rng) for x, rng in zip(batch.images, rngs, strict=True)])
    states = torch.stack([_state(options, x, rng) for x, rng in zip(batch.states, rngs, strict=True)])
    texts = [_text(options, text, data, rng) for text, rng in zip(batch.texts, rngs, strict=True)]
    resets = [was or rng.random() < options.reset for was, rng in zip(batch.resets, rngs, strict=True)]
    target = batch.target
    if options.action_noise:
        noise = np.stack([rng.standard_normal(batch.target.shape[1:], np.float32) for rng in rngs])
        noise[..., binary] = 0.0
        target = target + options.action_noise * torch.from_numpy(noise)
    return batch._replace(images=images, states=states, texts=texts, resets=resets, target=target)


def _image(options: Augment, x: Tensor, rng: np.random.Generator) -> Tensor:
    """(W, C, 3, H, W) in [0, 1]; every frame of a window changes alike."""
    flat = x.flatten(0, 1)
    height, width = flat.shape[-2:]
    if options.shift_px:
        pad = options.shift_px
        dy, dx = (int(v) for v in rng.integers(0, 2 * pad + 1, 2))
        flat = F.pad(flat, (pad,) * 4, mode="replicate")[..., dy : dy + height, dx : dx + width]
    if options.crop:
        top, bottom = (int(v * options.crop * height) for v in rng.random(2))
        left, right = (int(v * options.crop * width) for v in rng.random(2))
        cut = flat[..., top : height - bottom, left : width - right]
        flat = F.interpolate(cut, (height, width), mode="bilinear", antialias=True)
    gain = 1 + options.gain * (2 * rng.random() - 1)
    tint = torch.from_numpy((1 + options.tint * (2 * rng.random(3, np.float32) - 1)) * gain).float()[:, None, None]
    return (flat * tint + options.offset * (2 * rng.random() - 1)).clamp(0, 1).view(x.shape)


def _state(options: Augment, x: Tensor, rng: np.random.Generator) -> Tensor:
    if rng.random() < options.state_dropout:
        return torch.zeros_like(x)
    return x + options.state_noise * torch.from_numpy(rng.standard_normal(tuple(x.shape), np.float32))


def _text(options: Augment, text: str, data: DemonstrationSet, rng: np.random.Generator) -> str:
    others = data.phrasings.get(text, ())
    if others and rng.random() < options.paraphrase:
        return others[int(rng.integers(len(others)))]
    return text
