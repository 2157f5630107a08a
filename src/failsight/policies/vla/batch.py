"""What one training step sees."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class WindowBatch(NamedTuple):
    """B windows of W frames."""

    images: Tensor
    """(B, W, C, 3, H, W) uint8."""
    states: Tensor
    """(B, W, S) float, normalised."""
    texts: list[str]
    resets: list[bool]
    """Whether the robot has been re-instructed in this episode before the window's last frame."""
    target: Tensor
    """(B, W, H, A) float, normalised."""
    weight: Tensor
    """(B, W, H) 0 where an action lies behind the end or a frame before the start."""
    fails: Tensor
    """(B, W) 1 the episode fails, 0 it does not, NaN unknown or before the start."""
    failing: Tensor
    """(B, W) 1 lost or nearly, 0 not, NaN as above."""
    left: Tensor
    """(B, W) steps to the onset; inf or NaN."""
    places: Tensor
    """(B, W, P) auxiliary targets; P is 0 where none are asked for."""
    episodes: Tensor
    """(B,) which episodes of the data set they are from."""
    rows: Tensor
    """(B,) which windows these are, for errors and keyed draws."""

    def to(self, device: torch.device) -> WindowBatch:
        """The batch on a device."""
        return WindowBatch(
            images=self.images.to(device),
            states=self.states.to(device),
            texts=self.texts,
            resets=self.resets,
            target=self.target.to(device),
            weight=self.weight.to(device),
            fails=self.fails.to(device),
            failing=self.failing.to(device),
            left=self.left.to(device),
            places=self.places.to(device),
            episodes=self.episodes,
            rows=self.rows,
        )
