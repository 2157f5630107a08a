"""The `tiny` network.

Per camera a convolution tower modulated by the language (FiLM, Perez et al. 2018, arXiv 1709.07871) ends in spatial
softmax keypoints (Levine et al. 2016, arXiv 1504.00702). Five tokens (two cameras, language, state, query) pass a
transformer; the query's output is the hidden state. On it stand an ensemble of chunk heads (L1) and a flow-matching
head (Lipman et al. 2023, arXiv 2210.02747) that draws chunks from noise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failsight.policies.vla.config import TinyConfig
from failsight.policies.vla.tower import Tower

AUX_OFFSETS, AUX_FLAGS = 9, 2
"""Auxiliary targets: target, goal and post minus tool (9, dm; 0 without a post), then held and post present (2)."""


class Batch(NamedTuple):
    """Network inputs."""

    images: Tensor
    """(B, C, 3, H, W) float in [0, 1]."""
    tokens: Tensor
    """(B, L) int64."""
    state: Tensor
    """(B, S) float, normalised."""


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


class Flow(nn.Module):
    """Velocity field from noise (t=0) to the expert's chunk (t=1)."""

    frequencies: Tensor

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        size, width = config.chunk * config.actions, config.flow_width
        self.enter = nn.Linear(size + 16, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, config.width) for _ in range(3))
        self.leave = nn.Linear(width, size)
        self.register_buffer("frequencies", 2.0 ** torch.arange(8) * 1.5707964, persistent=False)

    def forward(self, x: Tensor, time: Tensor, hidden: Tensor) -> Tensor:
        """(N, H*A), (N, 1), (N, width) -> (N, H*A)."""
        phase = time * self.frequencies
        x = self.enter(torch.cat([x, phase.sin(), phase.cos()], -1))
        for block in self.blocks:
            x = block(x, hidden)
        out: Tensor = self.leave(x)
        return out


class TinyVLA(nn.Module):
    """Images, instruction and state in; hidden state, ensemble chunks and a flow field out."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        width, state = config.width, len(config.observation_spec.state)
        self.words = nn.Embedding(len(config.vocabulary) + 2, 32, padding_idx=0)
        self.positions = nn.Parameter(0.02 * torch.randn(20, 32))
        self.language = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
        cameras = len(config.observation_spec.cameras)
        self.towers = nn.ModuleList(Tower(64, config.keypoints, width) for _ in range(cameras))
        self.language_token = nn.Linear(64, width)
        self.state_token = nn.Sequential(nn.Linear(state, 128), nn.GELU(), nn.Linear(128, width))
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.kinds = nn.Parameter(0.02 * torch.randn(cameras + 3, width))
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.trunk = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        size = config.chunk * config.actions
        self.members = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 192), nn.GELU(), nn.Linear(192, size)) for _ in range(config.members)
        )
        self.flow = Flow(config)
        self.aux = nn.Linear((1 + cameras) * width, AUX_OFFSETS + AUX_FLAGS)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Query token (B, width) for the heads, and the exposed hidden state (B, (1 + C) width):
        query and camera tokens, from which the auxiliary targets (where things are) can be read linearly.
        """
        language = self._language(batch.tokens)
        tokens = [tower(batch.images[:, i], language) for i, tower in enumerate(self.towers)]
        tokens += [self.language_token(language), self.state_token(batch.state)]
        tokens.append(self.query.expand_as(tokens[0]))
        out = self.trunk(torch.stack([t.to(tokens[-1].dtype) for t in tokens], 1) + self.kinds)
        query: Tensor = self.norm(out[:, -1])
        return query, torch.cat([query, *(self.norm(out[:, i]) for i in range(len(self.towers)))], -1)

    def _language(self, tokens: Tensor) -> Tensor:
        present = (tokens > 0).float()[..., None]
        embedded = self.words(tokens)
        mean = (embedded * present).sum(1) / present.sum(1).clamp(min=1)
        placed = (embedded * self.positions * present).sum(1)
        out: Tensor = self.language(torch.cat([mean, placed], -1))
        return out

    def chunks(self, hidden: Tensor) -> Tensor:
        """(B, width) -> ensemble chunks (B, M, H, A)."""
        shape = (len(hidden), len(self.members), self.config.chunk, self.config.actions)
        return torch.stack([member(hidden) for member in self.members], 1).view(shape)

    def sample(self, hidden: Tensor, noise: Tensor) -> Tensor:
        """Integrate the flow: hidden (1, width), noise (K, H*A) -> chunks (K, H, A)."""
        x, steps = noise, self.config.flow_steps
        hidden = hidden.expand(len(noise), -1)
        for i in range(steps):
            time = torch.full((len(noise), 1), i / steps)
            x = x + self.flow(x, time, hidden) / steps
        return x.view(len(noise), self.config.chunk, self.config.actions)


def losses(model: TinyVLA, batch: Batch, chunk: Tensor, aux: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Training losses of one batch.

    Args:
        model: the network.
        batch: inputs.
        chunk: (B, H, A) the expert's noise-free chunk.
        aux: (B, 11) auxiliary targets.
        weight: (B, M) bootstrap weights of the ensemble members.
    """
    query, hidden = (t.float() for t in model.encode(batch))
    error = (model.chunks(query) - chunk[:, None]).abs().mean((-1, -2))
    draws = 4
    target = chunk.flatten(1).repeat(draws, 1)
    noise = torch.randn_like(target)
    time = torch.rand(len(target), 1)
    mixed = (1 - time) * noise + time * target
    velocity = model.flow(mixed, time, query.repeat(draws, 1))
    guess = model.aux(hidden)
    return {
        "chunk": (error * weight).mean(),
        "flow": F.mse_loss(velocity, target - noise) * 0.5,
        "aux": F.smooth_l1_loss(guess[:, :AUX_OFFSETS], aux[:, :AUX_OFFSETS])
        + 0.1 * F.binary_cross_entropy_with_logits(guess[:, AUX_OFFSETS:], aux[:, AUX_OFFSETS:]),
    }
