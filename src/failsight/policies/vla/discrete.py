"""Actions as words: 256 uniform bins over [-1, 1], spoken one after the other by the backbone.

As RT-2 and OpenVLA: an action is A tokens from the end of the vocabulary; each is predicted from the sequence so far.
Inputs are the vocabulary's own rows, outputs a classifier that starts from them, so a frozen backbone can learn them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failsight.policies.vla.backbone import BINS
from failsight.policies.vla.design import VLAConfig
from failsight.policies.vla.heads import chunks


def encode(actions: Tensor) -> Tensor:
    """Normalised actions (...,) in [-1, 1] -> bin numbers 0 to 255; values outside are clipped.

    >>> encode(torch.tensor([-1.0, 0.0, 1.0, 7.0])).tolist()
    [0, 128, 255, 255]
    """
    return ((actions.clamp(-1, 1) + 1) / 2 * BINS).long().clamp(max=BINS - 1)


def decode(bins: Tensor) -> Tensor:
    """Bin numbers (...) -> bin centres (...) in [-1, 1]; `encode(decode(b)) == b` for every bin.

    >>> decode(torch.tensor([0, 255])).tolist()
    [-0.99609375, 0.99609375]
    """
    return (bins.float() + 0.5) * (2 / BINS) - 1


class DiscreteHead(nn.Module):
    """Classifies each next action token."""

    def __init__(self, config: VLAConfig, rows: Tensor) -> None:
        super().__init__()
        self._shape = (config.chunk, config.actions)
        self.norm = nn.LayerNorm(rows.shape[1])
        self.classify = nn.Linear(rows.shape[1], BINS)
        with torch.no_grad():
            self.classify.weight.copy_(rows)
            self.classify.bias.zero_()

    @property
    def length(self) -> int:
        """Tokens of a chunk, H * A."""
        return self._shape[0] * self._shape[1]

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, E) -> logits (B, L, 256)."""
        out: Tensor = self.classify(self.norm(tokens))
        return out

    def error(self, tokens: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy per action of the chunk: (B, H*A, E), (B, H, A) -> (B, H)."""
        logits = self(tokens)
        loss = F.cross_entropy(logits.flatten(0, 1), encode(target).flatten(), reduction="none")
        return loss.view(len(target), *self._shape).mean(-1)

    def chunk(self, bins: Tensor) -> Tensor:
        """(B, H*A) bins -> (B, H, A) actions."""
        return chunks(decode(bins), self._shape)
