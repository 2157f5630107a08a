"""A policy network: backbone, state encoder, action head and, when asked for, a failure head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from failsight.core.errors import FailsightError, UnknownNameError
from failsight.policies.vla.auxiliary import auxiliary_error
from failsight.policies.vla.backbone import Features, VLMBackbone
from failsight.policies.vla.batch import WindowBatch
from failsight.policies.vla.design import VLAConfig, require_attention, require_cell, require_tuning
from failsight.policies.vla.discrete import DiscreteHead, encode
from failsight.policies.vla.ensemble import EnsembleHead, bootstrap
from failsight.policies.vla.failure_head import FailureHead, FailureLoss, failure_error
from failsight.policies.vla.heads import HEADS, FlowHead, Loss, binary_dimensions
from failsight.policies.vla.joint_backbone import JointBackbone
from failsight.policies.vla.tiny_backbone import MAX_BINS, TinyBackbone

_HEADS = {**HEADS, "ensemble": EnsembleHead}
STATE_WIDTH = 64
DRAWS = 4
"""Noise draws per frame in the flow loss."""


class Acted(NamedTuple):
    """One inference for B windows."""

    chunk: Tensor
    """(B, H, A) normalised; binary dimensions are -1 or 1 (ensemble: the members' mean)."""
    samples: Tensor | None
    """(B, K, H, A) or None."""
    members: Tensor | None
    """(B, M, H, A) or None."""


class VLAModel(nn.Module):
    """See the module docstring. Raises FailsightError for a cell that does not exist."""

    def __init__(self, config: VLAConfig, folder: Path | None = None) -> None:
        """`folder`: the checkpoint whose weights will be restored; None starts from the base weights."""
        super().__init__()
        require_cell(config.head, config.history, config.chunk)
        require_tuning(config.backbone.tuning)
        require_attention(config.backbone, config.history)
        if config.failure is not None and not config.action_spec.rate_hz > 0:
            raise FailsightError("A failure head counts in seconds, and the data do not say how many steps one has.")
        self.config = config
        discrete = config.head.kind == "discrete"
        self.backbone: Any = _make_backbone(config, folder)
        complete = self.backbone.reads_state
        states = len(config.observation_spec.state) if config.use_state else 0
        self.state = nn.Identity() if complete else _state_encoder(states)
        inputs = self.backbone.width + (STATE_WIDTH if states and not complete else 0)
        self.width = inputs
        self.head_width = self.backbone.head_width or inputs
        self.norm = nn.Identity() if complete else nn.LayerNorm(self.backbone.width)
        self.head: Any
        if discrete and config.backbone.family == "tiny" and config.chunk * config.actions > MAX_BINS:
            raise FailsightError(
                f"The tiny backbone speaks at most {MAX_BINS} action tokens; chunk x dimensions is "
                f"{config.chunk * config.actions}. Use a shorter --chunk."
            )
        if discrete:
            self.head = DiscreteHead(config, self.backbone.bin_rows())
        else:
            self.head = _HEADS[config.head.kind](config, self.head_width, config.history.window)
        self.failure = None if config.failure is None else FailureHead(config.failure, inputs)
        columns = config.auxiliary.columns
        self.auxiliary = nn.Linear(inputs, columns) if columns else None
        self.action_loss = Loss(config)
        self.failure_loss: FailureLoss | None = None

    # ------------------------------------------------------------------ features

    def features(
        self,
        images: Tensor,
        states: Tensor,
        texts: Sequence[str],
        resets: Sequence[bool],
        bins: Tensor | None = None,
    ) -> Features:
        """Features of every frame of B windows, state included: acts (B, W, F).

        Args:
            images: (B, W, C, 3, H, W) uint8, or float in [0, 1].
            states: (B, W, S) normalised.
            texts: B instructions.
            resets: B flags of the prompt-reset token.
            bins: (B, L) action tokens so far (discrete head).
        """
        if images.dtype == torch.uint8:
            images = images.float() / 255.0
        batch, window = images.shape[:2]
        if not self.config.reset_token:
            resets = [False] * len(resets)
        if self.backbone.reads_state:
            complete: Features = self.backbone(images, texts, resets, bins, states)
            return complete._replace(acts=complete.acts.float())
        if self.config.history.kind == "interleaved" or window == 1:
            seen = self.backbone(images, texts, resets, bins)
            acts, tokens = seen.acts, seen.tokens
        else:
            every_text = [text for text in texts for _ in range(window)]
            every_reset = [reset for reset in resets for _ in range(window)]
            acts = self.backbone(images.flatten(0, 1)[:, None], every_text, every_reset).acts
            acts, tokens = acts.reshape(batch, window, -1), None
        acts = self.norm(acts.float())
        if self.config.use_state and states.shape[-1]:
            acts = torch.cat([acts, self.state(states)], -1)
        return Features(acts, None if tokens is None else tokens.float())

    # ------------------------------------------------------------------ training

    def forward(self, batch: WindowBatch, draws: tuple[Tensor, Tensor] | None = None) -> dict[str, Tensor]:
        """Losses of a batch: `action`, `auxiliary` and `failure` where there are such heads, and their weighted sum `total`.

        `draws`: noise (D, B, W, H*A) and times (D, B, W, 1) of the flow head.
        """
        bins = encode(batch.target[:, -1]).flatten(1)[:, :-1] if isinstance(self.head, DiscreteHead) else None
        seen = self.features(batch.images, batch.states, batch.texts, batch.resets, bins)
        error = self._action_error(seen, batch, draws)
        weight = batch.weight[:, -error.shape[1] :]
        action = ((error * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)).mean()
        losses = {"action": action, "total": action}
        if self.auxiliary is not None:
            asked = auxiliary_error(self.auxiliary(seen.acts), batch.places, self.config.auxiliary)
            losses |= {"auxiliary": asked, "total": action + asked}
        if self.failure is not None and self.config.failure is not None:
            share = self.config.failure.gradient
            said = self.failure(share * seen.acts + (1 - share) * seen.acts.detach())
            dt_s = 1 / self.config.action_spec.rate_hz
            failure = failure_error(said, batch.fails, batch.failing, batch.left, dt_s, self.failure_loss)
            losses |= {"failure": failure, "total": losses["total"] + self.config.failure.alpha * failure}
        return losses

    def _action_error(self, seen: Features, batch: WindowBatch, draws: tuple[Tensor, Tensor] | None) -> Tensor:
        """(B, W, H) loss of every predicted action (discrete: of the last frame only)."""
        if isinstance(self.head, DiscreteHead):
            assert seen.tokens is not None
            return self.head.error(seen.tokens, batch.target[:, -1])[:, None]
        read = seen.acts[..., : self.head_width]
        if isinstance(self.head, EnsembleHead):
            assert draws is not None
            counts = bootstrap(batch.episodes, self.config.head.members)
            return self.head.error(read, batch.target, *draws, counts if self.training else torch.ones_like(counts))
        if isinstance(self.head, FlowHead):
            assert draws is not None
            return self.head.error(read, batch.target, *draws)
        error: Tensor = self.action_loss(self.head(read), batch.target)
        return error

    # ------------------------------------------------------------------ running

    def act(self, features: Tensor, noise: Tensor | None) -> Acted:
        """Chunk for the last frame of (B, W, F) features; `noise` (B, K, H*A) for a head that draws."""
        read = features[..., : self.head_width]
        if isinstance(self.head, EnsembleHead):
            assert noise is not None
            members = self.head.chunks(read[:, -1])
            return Acted(members.mean(1), self.head.sample(read[:, -1], noise), members)
        if isinstance(self.head, FlowHead):
            assert noise is not None
            samples = self._signs(self.head.sample(read[:, -1], noise))
            return Acted(samples[:, 0], samples, None)
        return Acted(self._signs(self.head(read)[:, -1]), None, None)

    def speak(self, images: Tensor, states: Tensor, texts: Sequence[str], resets: Sequence[bool]) -> Acted:
        """Discrete head: the chunk (B, H, A), token by token (greedy); the arguments are those of `features`."""
        bins = torch.zeros(len(images), 0, dtype=torch.int64, device=images.device)
        for _ in range(self.head.length):
            tokens = self.features(images, states, texts, resets, bins).tokens
            assert tokens is not None
            bins = torch.cat([bins, self.head(tokens[:, -1:]).argmax(-1)], 1)
        return Acted(self._signs(self.head.chunk(bins)), None, None)

    def _signs(self, chunk: Tensor) -> Tensor:
        binary = torch.tensor(binary_dimensions(self.config.action_spec), device=chunk.device)
        return torch.where(binary, torch.where(chunk > 0, 1.0, -1.0), chunk)

    def train_only(self, part: str) -> None:
        """`all`, `failure` (the failure head on a frozen policy) or `heads` (the backbone stays as it is).

        Raises UnknownNameError for another part, FailsightError for a failure head that is not there.
        """
        if part not in ("all", "failure", "heads"):
            raise UnknownNameError("part to train", part, ("all", "failure", "heads"))
        if part == "failure" and self.failure is None:
            raise FailsightError("There is no failure head to train alone; ask for one with --failure-head.")
        if part == "failure":
            self.requires_grad_(False)
            assert self.failure is not None
            self.failure.requires_grad_(True)
        elif part == "heads":
            self.backbone.requires_grad_(False)


def _make_backbone(config: VLAConfig, folder: Path | None) -> Any:
    options, cameras = config.backbone, len(config.observation_spec.cameras)
    if options.attention == "joint":
        states = len(config.observation_spec.state) if config.use_state else 0
        return JointBackbone(options, config.vocabulary, cameras, states, config.word_rule)
    if options.family == "tiny":
        start, window = folder is None, config.history.window
        return TinyBackbone(options, config.vocabulary, cameras, window, start=start, word_rule=config.word_rule)
    whole = folder / "backbone" if folder is not None and options.tuning == "full" else None
    return VLMBackbone(options, cameras, config.head.kind == "discrete", whole)


def _state_encoder(states: int) -> nn.Module:
    return nn.Sequential(nn.Linear(states, STATE_WIDTH), nn.GELU(), nn.Linear(STATE_WIDTH, STATE_WIDTH))
