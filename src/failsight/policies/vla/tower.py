"""A camera's picture into one token: a small convolution tower under the instruction's influence.

Three convolutions, two of them modulated by language (FiLM, Perez et al. 2018, arXiv 1709.07871), end in spatial softmax
keypoints (Levine et al. 2016, arXiv 1504.00702).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Film(nn.Module):
    """x * (1 + gamma(language)) + beta(language), per channel."""

    def __init__(self, language: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(language, 2 * channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Tensor, language: Tensor) -> Tensor:
        """(B, C, H, W) and (B, L) -> (B, C, H, W)."""
        gamma, beta = self.project(language).chunk(2, -1)
        out: Tensor = x * (1 + gamma[..., None, None]) + beta[..., None, None]
        return out


class Tower(nn.Module):
    """One camera: three convolutions, two of them modulated by language, then keypoints."""

    def __init__(self, language: int, keypoints: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(32, keypoints, 3, padding=1)
        self.norm2, self.norm3 = nn.GroupNorm(4, 32), nn.GroupNorm(4, keypoints)
        self.film2, self.film3 = Film(language, 32), Film(language, keypoints)
        self.temperature = nn.Parameter(torch.ones(keypoints))
        self.out = nn.Linear(3 * keypoints, width)

    def forward(self, image: Tensor, language: Tensor) -> Tensor:
        """(B, 3, H, W), (B, L) -> (B, width)."""
        x = F.relu(self.conv1(image * 2 - 1))
        x = F.relu(self.film2(self.norm2(self.conv2(x)), language))
        x = self.film3(self.norm3(self.conv3(x)), language)
        out: Tensor = self.out(self._keypoints(x.float()))
        return out

    def _keypoints(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        flat = x.flatten(2)
        weight = torch.softmax(flat * self.temperature[:, None], -1)
        rows = torch.linspace(-1, 1, height, device=x.device).repeat_interleave(width)
        columns = torch.linspace(-1, 1, width, device=x.device).repeat(height)
        return torch.cat([weight @ rows, weight @ columns, flat.amax(-1)], -1)
