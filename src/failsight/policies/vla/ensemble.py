"""The ensemble head: several chunk heads that learnt from different episodes, and a field that draws chunks.

The executed chunk is the members' mean, their spread says what the data left open (Osband et al. 2016, arXiv
1602.04621: every member counts each episode a Poisson number of times); the drawn chunks show what else was considered.
Binary dimensions are learnt like the others, so between the two signs lies doubt.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failsight.core.rng import keyed_rng
from failsight.policies.vla.design import VLAConfig
from failsight.policies.vla.heads import ERRORS, chunks, field_error, frequencies, integrate

MEMBER_WIDTH = 192
FLOW_SHARE = 0.5
"""Weight of the field's squared error beside the members' error."""
DRAWN_RANGE = 2.0
"""Drawn chunks are shown within this many times the normal range."""


class ResidualBlock(nn.Module):
    """x + MLP(LayerNorm(x)) with a conditioning vector added inside."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, width)
        self.condition = nn.Linear(condition, width)
        self.down = nn.Linear(width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, width), (N, condition) -> (N, width)."""
        y: Tensor = x + self.down(F.silu(self.up(self.norm(x)) + self.condition(condition)))
        return y


class Field(nn.Module):
    """Velocity from noise (time 0) to the expert's chunk (time 1), conditioned anew in every block."""

    frequencies: Tensor

    def __init__(self, size: int, inputs: int, width: int, depth: int) -> None:
        """`size`: H*A."""
        super().__init__()
        self.enter = nn.Linear(size + 16, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, inputs) for _ in range(depth))
        self.leave = nn.Linear(width, size)
        self.register_buffer("frequencies", frequencies(), persistent=False)

    def forward(self, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
        """(..., H*A), (..., 1), (..., F) -> (..., H*A)."""
        shape, condition = x.shape, features.flatten(0, -2)
        phase = time.flatten(0, -2) * self.frequencies
        x = self.enter(torch.cat([x.flatten(0, -2), phase.sin(), phase.cos()], -1))
        for block in self.blocks:
            x = block(x, condition)
        out: Tensor = self.leave(x).view(shape)
        return out


class EnsembleHead(nn.Module):
    """See the module docstring."""

    def __init__(self, config: VLAConfig, inputs: int, window: int) -> None:
        super().__init__()
        size, options = config.chunk * config.actions, config.head
        self._shape, self._steps, self._kind = (config.chunk, config.actions), options.flow_steps, config.arm_loss
        self.members = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, MEMBER_WIDTH), nn.GELU(), nn.Linear(MEMBER_WIDTH, size))
            for _ in range(options.members)
        )
        self.flow = Field(size, inputs, options.width, options.depth)

    def chunks(self, features: Tensor) -> Tensor:
        """(..., F) -> (..., M, H, A): what every member would do."""
        return chunks(torch.stack([member(features) for member in self.members], -2), self._shape)

    def forward(self, features: Tensor) -> Tensor:
        """(B, W, F) -> (B, W, H, A): the members' mean."""
        mean: Tensor = self.chunks(features).mean(-3)
        return mean

    def error(self, features: Tensor, target: Tensor, noise: Tensor, time: Tensor, weight: Tensor) -> Tensor:
        """Loss of every predicted action.

        Args:
            features: (B, W, F).
            target: (B, W, H, A).
            noise: (D, B, W, H*A) of the field.
            time: (D, B, W, 1) of the field.
            weight: (B, M) how often each member counts the window's episode.

        Returns (B, W, H): error of the members, plus half the squared error of the field.
        """
        said = self.chunks(features)
        off = ERRORS[self._kind](said, target[:, :, None].expand_as(said), reduction="none").mean(-1)
        members = (off * weight[:, None, :, None]).mean(2)
        drawn = field_error(self.flow, features, target, noise, time)
        error: Tensor = members + FLOW_SHARE * chunks(drawn, self._shape).mean(-1)
        return error

    def sample(self, features: Tensor, noise: Tensor) -> Tensor:
        """(B, F), (B, K, H*A) -> (B, K, H, A) within `DRAWN_RANGE`."""
        drawn = chunks(integrate(self.flow, features, noise, self._steps), self._shape)
        return drawn.clamp(-DRAWN_RANGE, DRAWN_RANGE)


def bootstrap(episodes: Tensor, members: int) -> Tensor:
    """(B,) episode numbers -> (B, M) how often each member counts them, the same at every step of a training."""
    return torch.tensor([_counts(episode, members) for episode in episodes.tolist()], device=episodes.device)


@lru_cache(maxsize=1 << 16)
def _counts(episode: int, members: int) -> list[float]:
    return [float(count) for count in keyed_rng("bootstrap", episode).poisson(1.0, members)]
