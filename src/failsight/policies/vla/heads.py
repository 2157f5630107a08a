"""Action heads: features of W frames in, a chunk of normalised actions out.

All predict a chunk at every frame of the window (training uses them all, running the last). Binary dimensions are
logits. `fc` looks at one frame; `lstm` and `gpt` model time over the window; `flow` draws chunks (Lipman et al. 2023,
arXiv 2210.02747); the discrete head lives in `discrete`, the ensemble in `ensemble`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failsight.core.specs import ActionSpec
from failsight.policies.vla.design import HeadConfig, VLAConfig

ERRORS: dict[str, Any] = {"huber": F.huber_loss, "mse": F.mse_loss, "l1": F.l1_loss}


class Loss(nn.Module):
    """Huber, squared or absolute error on continuous dimensions plus weighted cross-entropy on binary ones."""

    binary: Tensor

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        self.register_buffer("binary", torch.tensor(binary_dimensions(config.action_spec)), persistent=False)
        self._ratio, self._kind = config.gripper_ratio, config.arm_loss

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """(..., A), (..., A) -> (...,): one number per predicted action."""
        error: Tensor = ERRORS[self._kind](predicted, target, reduction="none")
        arm = error[..., ~self.binary].mean(-1) if not bool(self.binary.all()) else error.new_zeros(error.shape[:-1])
        if not bool(self.binary.any()):
            return arm
        closed = (target[..., self.binary] > 0).float()
        gripper = F.binary_cross_entropy_with_logits(predicted[..., self.binary], closed, reduction="none").mean(-1)
        return arm + self._ratio * gripper


def binary_dimensions(spec: ActionSpec) -> list[bool]:
    """Which dimensions are an either-or (a gripper)."""
    return [dimension.kind == "binary" for dimension in spec.dimensions]


def chunks(flat: Tensor, shape: tuple[int, int]) -> Tensor:
    """(..., H*A) -> (..., H, A)."""
    return flat.reshape(*flat.shape[:-1], *shape)


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Two stages, as RoboVLMs' head."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, outputs)
    )


class FCHead(nn.Module):
    """Each frame by itself."""

    def __init__(self, config: VLAConfig, inputs: int, window: int) -> None:
        super().__init__()
        self._shape = (config.chunk, config.actions)
        self.net = mlp(inputs, config.head.width, config.chunk * config.actions)

    def forward(self, features: Tensor) -> Tensor:
        """(B, W, F) -> (B, W, H, A)."""
        return chunks(self.net(features), self._shape)


class LSTMHead(nn.Module):
    """A recurrent net over the window, run anew for every window, so that a long episode cannot drift.

    The present frame also goes around the net: two layers without that way learnt nothing in 2,000 steps.
    """

    def __init__(self, config: VLAConfig, inputs: int, window: int) -> None:
        super().__init__()
        self._shape = (config.chunk, config.actions)
        self.enter = nn.Linear(inputs, config.head.width)
        self.lstm = nn.LSTM(config.head.width, config.head.width, config.head.depth, batch_first=True)
        self.norm = nn.LayerNorm(config.head.width)
        self.leave = mlp(config.head.width, config.head.width, config.chunk * config.actions)

    def forward(self, features: Tensor) -> Tensor:
        """(B, W, F) -> (B, W, H, A)."""
        seen = self.enter(features)
        states, _ = self.lstm(seen)
        return chunks(self.leave(self.norm(states + seen)), self._shape)


class GPTHead(nn.Module):
    """A causal GPT-2 over the window."""

    def __init__(self, config: VLAConfig, inputs: int, window: int) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2Model

        width, self._shape = config.head.width, (config.chunk, config.actions)
        self.enter = nn.Linear(inputs, width)
        self.gpt = GPT2Model(
            GPT2Config(
                vocab_size=1,
                bos_token_id=None,
                eos_token_id=None,
                n_positions=window,
                n_embd=width,
                n_layer=config.head.depth,
                n_head=4,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
            )
        )
        self.gpt.wte.requires_grad_(False)  # inputs are features, not words
        self.leave = mlp(width, width, config.chunk * config.actions)

    def forward(self, features: Tensor) -> Tensor:
        """(B, W, F) -> (B, W, H, A)."""
        states = self.gpt(inputs_embeds=self.enter(features), use_cache=False).last_hidden_state
        return chunks(self.leave(states), self._shape)


class FlowHead(nn.Module):
    """A velocity field from noise (time 0) to the expert's chunk (time 1), conditioned on the features."""

    frequencies: Tensor

    def __init__(self, config: VLAConfig, inputs: int, window: int) -> None:
        super().__init__()
        options: HeadConfig = config.head
        size, width = config.chunk * config.actions, options.width
        self._shape, self._steps = (config.chunk, config.actions), options.flow_steps
        self.condition = nn.Linear(inputs, width)
        self.enter = nn.Linear(size + 16, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(max(2, options.depth))
        )
        self.leave = nn.Linear(width, size)
        self.register_buffer("frequencies", frequencies(), persistent=False)

    def velocity(self, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
        """(..., H*A), (..., 1), (..., F) -> (..., H*A)."""
        phase = time * self.frequencies
        condition = self.condition(features)
        x = self.enter(torch.cat([x, phase.sin(), phase.cos()], -1))
        for block in self.blocks:
            x = x + block(x + condition)
        out: Tensor = self.leave(x)
        return out

    def error(self, features: Tensor, target: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Squared error of the field: (B, W, F), (B, W, H, A), (D, B, W, H*A), (D, B, W, 1) -> (B, W, H)."""
        return chunks(field_error(self.velocity, features, target, noise, time), self._shape).mean(-1)

    def sample(self, features: Tensor, noise: Tensor) -> Tensor:
        """(B, F), (B, K, H*A) -> (B, K, H, A)."""
        return chunks(integrate(self.velocity, features, noise, self._steps), self._shape)


Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(..., H*A) between noise and chunk, (..., 1) time, (..., F) features -> (..., H*A)."""


def field_error(velocity: Velocity, features: Tensor, target: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Squared error, mean over draws: (B, W, F), (B, W, H, A), (D, B, W, H*A), (D, B, W, 1) -> (B, W, H*A)."""
    goal = target.flatten(-2)
    mixed = (1 - time) * noise + time * goal
    guess = velocity(mixed, time, features.expand(len(noise), *features.shape))
    return ((guess - (goal - noise)) ** 2).mean(0)


def integrate(velocity: Velocity, features: Tensor, noise: Tensor, steps: int) -> Tensor:
    """Euler steps from noise to chunks: (B, F), (B, K, H*A) -> (B, K, H*A)."""
    x, features = noise, features[:, None].expand(-1, noise.shape[1], -1)
    for i in range(steps):
        time = torch.full_like(x[..., :1], i / steps)
        x = x + velocity(x, time, features) / steps
    return x


def frequencies() -> Tensor:
    """(8,) of the sines and cosines a field sees the time through."""
    return 2.0 ** torch.arange(8) * 1.5707964


HEADS = {"fc": FCHead, "lstm": LSTMHead, "gpt": GPTHead, "flow": FlowHead}
