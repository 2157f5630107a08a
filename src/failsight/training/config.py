"""Everything that decides a training beside its data; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from failsight.core.ranges import Between, Count, Names
from failsight.policies.vla.design import (
    ArmLoss,
    AuxiliaryConfig,
    BackboneConfig,
    FailureConfig,
    HeadConfig,
    HistoryConfig,
    Scheme,
)
from failsight.training.options import Augment, FitConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    history: HistoryConfig = field(default_factory=HistoryConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    augment: Augment = field(default_factory=Augment)
    chunk: Count = 10
    """Actions predicted at once."""
    action_dims: Names = ()
    """Which action dimensions to train, by name; empty: all of the data's."""
    use_state: bool = True
    """Feed the state to the head, where the data has one."""
    scheme: Scheme = "q01q99"
    """Normalisation of actions."""
    arm_loss: ArmLoss = "huber"
    """Loss of continuous action dimensions."""
    gripper_ratio: Annotated[float, Between(0, 1000)] = 0.05
    """Weight of the gripper's cross-entropy beside it."""
    clip: bool = True
    """Clip normalised actions to [-1, 1] (q01q99 and min-max)."""
    failure_head: bool = False
    """Train a failure head beside the action head (needs labelled data)."""
    failure: FailureConfig = field(default_factory=FailureConfig)
    auxiliary: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)
    hold_out: Names = ()
    """Scenarios kept out of training altogether."""
    validation_share: Annotated[float, Between(0, 0.9)] = 0.1
    """Share of the other episodes kept for the validation loss; 0: none, and the last checkpoint is the best."""
    start: Path | None = None
    """Checkpoint to continue from."""
    paraphrases: Path | None = None
    """JSON: instruction -> other wordings of it."""
