"""The loss menu of the learned models; every entry is a switch, every switch is ablated once (`run bench-tabletop`).

All take logits (N, T) and padded labels; a mask marks steps that exist and count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Main = Literal["episode", "brier", "td", "hazard", "margin", "rank", "safe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOptions:
    """One main loss and any of the others with their weights."""

    main: Main = "episode"
    trace: float = 0.9
    """lambda of TD(lambda)."""
    variation: float = 0.0
    """Total variation of p over time."""
    curvature: float = 0.0
    """Second difference of p over time."""
    monotone: float = 0.0
    """Hinge on falls of p within failed episodes."""
    contrast: float = 0.0
    """Pull steps of the same kind together, push normal and pre-failure steps apart (needs onsets, else the episode)."""
    patterns: float = 0.0
    """Predict next step's weak-pattern signals as an auxiliary target."""
    phases: bool = False
    """Draw early, middle and late steps of failed episodes equally often."""


class Batch(NamedTuple):
    """Padded labels."""

    failed: Tensor
    """(N,) float."""
    mask: Tensor
    """(N, T) float weight of every step; 0 is padding."""
    task: Tensor
    """(N,) int."""
    lengths: Tensor
    """(N,) int."""
    lost: Tensor
    """(N, T) float: 1 from shortly before the onset on (from the start of a failure whose onset is not known)."""


def loss_of(logits: Tensor, memory: Tensor, batch: Batch, options: LossOptions) -> Tensor:
    """Main loss plus the switched-on extras; `memory` (N, T, U) is the cell's state for the contrast."""
    total = _MAIN[options.main](logits, batch, options)
    p = torch.sigmoid(logits)
    pair = batch.mask[:, 1:] * batch.mask[:, :-1].sign()
    if options.variation:
        total = total + options.variation * _mean((p[:, 1:] - p[:, :-1]).abs(), pair)
    if options.curvature:
        triple = pair[:, 1:] * batch.mask[:, :-2].sign()
        total = total + options.curvature * _mean((p[:, 2:] - 2 * p[:, 1:-1] + p[:, :-2]).abs(), triple)
    if options.monotone:
        falls = F.relu(p[:, :-1] - p[:, 1:]) * batch.failed[:, None]
        total = total + options.monotone * _mean(falls, pair)
    if options.contrast:
        total = total + options.contrast * _contrast(memory, batch)
    return total


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)


def _episode(logits: Tensor, batch: Batch, options: LossOptions) -> Tensor:
    """The episode's label at every step (BCE)."""
    target = batch.failed[:, None].expand_as(logits)
    return _mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), batch.mask)


def _brier(logits: Tensor, batch: Batch, options: LossOptions) -> Tensor:
    return _mean((torch.sigmoid(logits) - batch.failed[:, None]) ** 2, batch.mask)


def td_targets(p: Tensor, batch: Batch, trace: float) -> Tensor:
    """(N, T) backward view: G_last = label, G_t = (1 - lambda) p_{t+1} + lambda G_{t+1}, from p (N, T).

    Sutton 1988; for VLAs arXiv 2604.20472.
    """
    result = torch.empty_like(p)
    target = batch.failed
    for t in range(p.shape[1] - 1, -1, -1):
        last = t >= batch.lengths - 1
        following = p[:, t + 1] if t + 1 < p.shape[1] else batch.failed
        target = torch.where(last, batch.failed, (1 - trace) * following + trace * target)
        result[:, t] = target
    return result


def _td(logits: Tensor, batch: Batch, options: LossOptions) -> Tensor:
    target = td_targets(torch.sigmoid(logits).detach(), batch, options.trace)
    return _mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), batch.mask)


def _hazard(logits: Tensor, batch: Batch, options: LossOptions) -> Tensor:
    """Noisy-or: an episode fails when any step's hazard struck; likelihood of the episode's label."""
    survive = -(F.softplus(logits - 4.0) * batch.mask.sign()).sum(1)
    fails = torch.log(-torch.expm1(survive.clamp(max=-1e-6)))
    return -(batch.failed * fails + (1 - batch.failed) * survive).mean()


def _top(logits: Tensor, batch: Batch) -> Tensor:
    return logits.masked_fill(batch.mask <= 0, -1e4).amax(1)


def _margin(logits: Tensor, batch: Batch, options: LossOptions) -> Tensor:
    """Multiple instances: the highest step of every failure above the highest step of every success (arXiv 2605.30834)."""
    return _pairwise(_top(logits, batch), batch, same_task=False)


def _rank(logits: Tensor, batch: Batch, options: LossOptions) -> Tensor:
    """The same between episodes of one task only, on the mean over steps."""
    mean = (logits * batch.mask).sum(1) / batch.mask.sum(1).clamp(min=1)
    return _pairwise(mean, batch, same_task=True)


def _pairwise(score: Tensor, batch: Batch, same_task: bool) -> Tensor:
    gap = score[:, None] - score[None]
    pairs = batch.failed[:, None] * (1 - batch.failed[None])
    if same_task:
        pairs = pairs * (batch.task[:, None] == batch.task[None])
    return _mean(F.relu(1 - gap), pairs) + 1e-3 * score.pow(2).mean()


def _safe(logits: Tensor, batch: Batch, options: LossOptions) -> Tensor:
    """SAFE-MLP's: the running sum of p, as it is on successes and with a minus on failures, here as a share of the
    episode's length (as published, a sum over a long episode drowns what is decided early).
    """
    total = (torch.sigmoid(logits) * batch.mask.sign()).cumsum(1) / batch.lengths[:, None]
    return _mean((1 - 2 * batch.failed[:, None]) * total, batch.mask)


def _contrast(memory: Tensor, batch: Batch) -> Tensor:
    """Supervised contrast on a few hundred steps, temperature 0.2 (Khosla et al. 2020, arXiv 2004.11362)."""
    rows = batch.mask.flatten().nonzero().squeeze(1)
    rows = rows[torch.linspace(0, len(rows) - 1, min(256, len(rows))).long()]
    z = F.normalize(memory.flatten(0, 1)[rows], dim=1)
    kind = batch.lost.flatten()[rows]
    logits = z @ z.T / 0.2
    itself = torch.eye(len(rows), dtype=torch.bool)
    logits = logits.masked_fill(itself, -1e4)
    same = (kind[:, None] == kind[None]) & ~itself
    log_p = logits - logits.logsumexp(1, keepdim=True)
    return -((log_p * same).sum(1) / same.sum(1).clamp(min=1)).mean()


_MAIN = {
    "episode": _episode,
    "brier": _brier,
    "td": _td,
    "hazard": _hazard,
    "margin": _margin,
    "rank": _rank,
    "safe": _safe,
}
