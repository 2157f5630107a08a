"""Dials of training and augmentation; nothing here needs torch, so the command line can show them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from failsight.core.ranges import Between, Count, Number, Seed, Share

Sampling = Literal["random", "sequential"]
Schedule = Literal["constant", "cosine", "step"]
Strength = Annotated[float, Between(0, 100)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """Dials of one training, counted in steps, so that the result does not depend on the machine's load."""

    steps: Count = 2000
    batch: Count = 32
    """Windows per process and micro-step."""
    accumulate: Count = 1
    learning_rate: Annotated[float, Between(0, 100, open=True)] = 1e-3
    weight_decay: Annotated[float, Between(0, 100)] = 1e-3
    schedule: Schedule = "cosine"
    warmup: Number = 100
    clip: Annotated[float, Between(0, 1e6, open=True)] = 1.0
    seed: Seed = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    sampling: Sampling = "random"
    evaluate_every: Count = 250
    save_every: Count = 250
    best_by: Literal["validation", "success", "last"] = "validation"
    """Which checkpoint counts as the best: lowest validation loss, highest success rate in a simulator, or simply the
    last one. Without validation episodes (--validation-share 0) it is the last one."""
    train: Literal["all", "heads", "failure"] = "all"
    threads: Annotated[int, Between(0, 1024)] = 0
    """Torch threads; 0 leaves them alone."""
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    validation_windows: Count = 512
    """Most windows in a validation loss (evenly spaced)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """Strengths; 0 switches one off. One draw per window: all its frames change alike."""

    shift_px: Annotated[int, Between(0, 1024)] = 3
    """Random shift of the image, edges repeated (RoboVLMs pads 10 of 224)."""
    crop: Annotated[float, Between(0, 0.45)] = 0.0
    """Largest share cut off each side before scaling back."""
    gain: Strength = 0.2
    tint: Strength = 0.08
    offset: Strength = 0.06
    action_noise: Strength = 0.0
    """Deviation added to continuous targets, in normalised units."""
    state_noise: Strength = 0.02
    state_dropout: Share = 0.1
    """Chance that a window's state is blanked, so that the policy does not lean on it alone."""
    paraphrase: Share = 0.5
    """Chance of another wording, where the data set has a table."""
    reset: Share = 0.05
    """Chance of the prompt-reset token where nobody re-instructed, so that it is known and does no harm."""
