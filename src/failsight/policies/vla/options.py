"""Dials of training and augmentation; nothing here needs torch, so the command line can show them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sampling = Literal["random", "sequential"]
Schedule = Literal["constant", "cosine", "step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """Dials of one training, counted in steps, so that the result does not depend on the machine's load."""

    steps: int = 2000
    batch: int = 32
    """Windows per process and micro-step."""
    accumulate: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    schedule: Schedule = "cosine"
    warmup: int = 100
    clip: float = 1.0
    seed: int = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    sampling: Sampling = "random"
    evaluate_every: int = 250
    save_every: int = 250
    best_by: Literal["validation", "success"] = "validation"
    train: Literal["all", "heads", "failure"] = "all"
    threads: int = 0
    """Torch threads; 0 leaves them alone."""
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    validation_windows: int = 512
    """Most windows in a validation loss (evenly spaced)."""


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
