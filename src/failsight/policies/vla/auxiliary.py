"""Auxiliary targets: what the features must also tell in training, so that a monitor can read it from them later.

A policy that need not mind an obstacle does not keep it in its hidden state; asked where it stands, it does.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from failsight.policies.vla.design import AuxiliaryConfig

_FLAG_RATIO = 0.1
"""Weight of the flags' cross-entropy beside the offsets' error."""


def auxiliary_error(guess: Tensor, places: Tensor, config: AuxiliaryConfig) -> Tensor:
    """Smooth absolute error of the offsets plus a tenth of the flags' cross-entropy: (B, W, P), (B, W, P) -> scalar."""
    offsets = config.offsets
    error = torch.zeros((), device=guess.device)
    if offsets:
        error = error + F.smooth_l1_loss(guess[..., :offsets], places[..., :offsets])
    if config.flags:
        flags = F.binary_cross_entropy_with_logits(guess[..., offsets:], places[..., offsets:])
        error = error + _FLAG_RATIO * flags
    return error
