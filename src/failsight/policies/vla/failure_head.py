"""The failure head: from the same features as the actions, what is about to go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failsight.policies.vla.design import FailureConfig

FailureLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits (B, W), fails (B, W), mask (B, W)) -> scalar: an entry of the loss menu in place of the default."""


class Foresight(NamedTuple):
    """What the head says, per frame."""

    fails: Tensor
    """(...) logit of p_fail."""
    left: Tensor
    """(...) log(1 + seconds to the onset), if it fails."""
    replan: Tensor
    """(...) logit of "failure is nearer than the horizon": a re-plan request."""


class FailureHead(nn.Module):
    """A small MLP; time is in the features where the history puts it there (`joined` by the action head is not used)."""

    def __init__(self, config: FailureConfig, inputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(inputs), nn.Linear(inputs, config.width), nn.GELU(), nn.Linear(config.width, 3)
        )

    def forward(self, features: Tensor) -> Foresight:
        """(..., F) -> three numbers each."""
        return Foresight(*self.net(features).unbind(-1))


def failure_error(
    said: Foresight, fails: Tensor, failing: Tensor, left: Tensor, dt_s: float, loss: FailureLoss | None
) -> Tensor:
    """Mean () over windows of: cross-entropy of p_fail, Huber error of log time, cross-entropy of the re-plan request.

    Unknown labels (NaN) count for nothing; a batch without any gives 0. Labels are per frame (B, W): `fails` and
    `failing` 0 or 1, `left` in steps of `dt_s` seconds, inf where nothing is to be learned.
    """
    known = torch.isfinite(fails)
    outcome = torch.where(known, fails, 0.0)
    if loss is None:
        total = _per_window(F.binary_cross_entropy_with_logits(said.fails, outcome, reduction="none"), known)
    else:
        total = loss(said.fails, outcome, known.float())
    counted = torch.isfinite(left)
    seconds = torch.where(counted, left, 0.0) * dt_s
    total = total + _per_window(F.huber_loss(said.left, torch.log1p(seconds), reduction="none"), counted)
    asked = torch.isfinite(failing)
    wanted = torch.where(asked, failing, 0.0)
    return total + _per_window(F.binary_cross_entropy_with_logits(said.replan, wanted, reduction="none"), asked)


def _per_window(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the known frames of each window, then over the windows."""
    weight = mask.float()
    return ((values * weight).sum(1) / weight.sum(1).clamp(min=1)).mean()
