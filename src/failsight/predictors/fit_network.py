"""Fitting the networks of `predictors.network` in torch: one loop, one loss menu, fixed length, no early stopping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failsight.core.errors import FailsightError
from failsight.core.types import Array
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.inputs import fit_inputs
from failsight.predictors.losses import Batch, LossOptions, loss_of
from failsight.predictors.network import Design, NetworkPredictor

_SOON = 20
"""Steps before the onset that count as lost, as for the six-signal network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Dials of a fit."""

    loss: LossOptions = field(default_factory=LossOptions)
    epochs: int = 40
    batch: int = 0
    """Episodes per step; 0: all."""
    learning_rate: float = 5e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    """Of the inputs and before the score."""
    skip_first: int = 0
    """First steps of an episode that do not count."""
    task_dropout: float = 0.0
    """Share of training episodes whose task is hidden, so that an unknown task is no surprise."""
    seed: int = 0


class _Network(nn.Module):
    """Torch twin of `NetworkPredictor`."""

    def __init__(self, design: Design, width: int, outputs: int, tasks: int, dropout: float) -> None:
        super().__init__()
        self.design, self.dropout = design, nn.Dropout(dropout)
        cells = {"gru": nn.GRU, "lstm": nn.LSTM}
        self.cell = cells[design.cell](width, design.units, batch_first=True) if design.cell != "none" else None
        entering = width if self.cell is None else design.units + (width if design.skip else 0)
        widths = (entering, *design.layers, outputs)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.start = nn.Embedding(tasks + 1, design.units, padding_idx=tasks) if design.task_state else None
        if self.start is not None:
            nn.init.zeros_(self.start.weight)
        self.foresee = nn.Linear(design.units or entering, width)

    def forward(self, x: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, W), (N,) -> logits (N, T, outputs), memory (N, T, U)."""
        if self.design.unit_length:
            x = F.normalize(x, dim=-1, eps=1e-6)
        x = self.dropout(x)
        memory = self._remember(x, task)
        seen = torch.cat([memory, x], -1) if self.design.skip and self.cell is not None else memory
        for layer in self.layers[:-1]:
            seen = F.relu(layer(seen))
        return self.layers[-1](self.dropout(seen)), memory

    def _remember(self, x: Tensor, task: Tensor) -> Tensor:
        if self.cell is None:
            return x
        if self.start is None:
            return self.cell(x)[0]  # type: ignore[no-any-return]
        h = self.start(task)[None]
        state = (h, torch.zeros_like(h)) if self.design.cell == "lstm" else h
        return self.cell(x, state)[0]  # type: ignore[no-any-return]


def fit_network(
    kind: type[NetworkPredictor], train: Sequence[LabelledSequence], columns: Sequence[str], options: TrainOptions
) -> NetworkPredictor:
    """Fit a registered network on training episodes; the same inputs and seed give the same weights (one thread)."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    design = kind.design
    arrays, inputs = fit_inputs(train, columns, design.inputs)
    x, batch, dimension = _tensors(train, inputs, options)
    outputs = 1 + (dimension.shape[2] if design.per_dimension else 0)
    names = sorted({s.task for s in train})
    network = _Network(design, x.shape[2], outputs, len(names), options.dropout)
    optimizer = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    size = options.batch or len(x)
    count = math.ceil(len(x) / size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * count)
    for epoch in range(options.epochs):
        for rows in torch.split(torch.randperm(len(x)), size):
            part = Batch(*(values[rows] for values in batch))
            loss = _step_loss(network, x[rows], part, dimension[rows], outputs, options)
            if not torch.isfinite(loss):
                raise FailsightError(
                    f"The loss of {kind.name} is not finite in epoch {epoch}; check the signals for NaN."
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return kind({**arrays, **_export(network.eval(), names)})


def _step_loss(
    network: _Network, x: Tensor, batch: Batch, dimension: Tensor, outputs: int, options: TrainOptions
) -> Tensor:
    hidden_task = torch.rand(len(x)) < options.task_dropout
    unknown = network.start.padding_idx if network.start is not None else 0
    logits, memory = network(x, torch.where(hidden_task, torch.tensor(unknown), batch.task))
    loss = loss_of(logits[..., 0], memory, batch, options.loss)
    if outputs > 1:
        each = F.binary_cross_entropy_with_logits(logits[..., 1:], dimension, reduction="none").mean(-1)
        loss = loss + (each * batch.mask).sum() / batch.mask.sum()
    if options.loss.patterns:
        error = (network.foresee(memory[:, :-1]) - x[:, 1:]) ** 2
        weight = batch.mask[:, 1:, None]
        loss = loss + options.loss.patterns * (error * weight).sum() / (weight.sum() * x.shape[2]).clamp(min=1)
    return loss


def _tensors(
    train: Sequence[LabelledSequence], inputs: list[Array], options: TrainOptions
) -> tuple[Tensor, Batch, Tensor]:
    """Padded inputs, labels, dimension labels; episodes are cut at twice the median successful length."""
    good = [len(s.signals) for s in train if not s.failed] or [len(s.signals) for s in train]
    limit = min(max(len(s.signals) for s in train), 2 * int(np.median(good)))
    count, actions = len(train), train[0].dimension.shape[1]
    x = np.zeros((count, limit, inputs[0].shape[1]), np.float32)
    mask, lost = np.zeros((count, limit), np.float32), np.zeros((count, limit), np.float32)
    dimension = np.zeros((count, limit, actions), np.float32)
    lengths = np.zeros(count, np.int64)
    for i, (s, values) in enumerate(zip(train, inputs, strict=True)):
        n = lengths[i] = min(len(values), limit)
        x[i, :n], dimension[i, :n] = values[:n], s.dimension[:n]
        mask[i, min(options.skip_first, n - 1) : n] = 1.0
        if s.failed:
            lost[i, 0 if s.onset is None else max(0, s.onset - _SOON) : n] = 1.0
    failed = np.array([s.failed for s in train], np.float32)
    if options.loss.phases:
        mask = _phases(mask, failed, lengths)
    names = sorted({s.task for s in train})
    task = np.array([names.index(s.task) for s in train])
    parts = (torch.from_numpy(a) for a in (failed, mask, task, lengths, lost))
    return torch.from_numpy(x), Batch(*parts), torch.from_numpy(dimension)


def _phases(mask: Array, failed: Array, lengths: Array) -> Array:
    """Early, middle and late thirds of failed episodes weigh the same, and together as much as all successes."""
    weights, bad = mask.copy(), failed > 0
    third = np.minimum(np.arange(mask.shape[1])[None] * 3 // np.maximum(lengths, 1)[:, None], 2)
    for phase in range(3):
        rows = bad[:, None] & (third == phase) & (mask > 0)
        total = mask[rows].sum()
        if total:
            weights[rows] *= mask[~bad].sum() / 3 / total
    return np.asarray(weights)


def _export(network: _Network, names: Sequence[str]) -> dict[str, Array]:
    arrays = {}
    for i, layer in enumerate(network.layers):
        arrays[f"w{i}"], arrays[f"b{i}"] = layer.weight.detach().numpy(), layer.bias.detach().numpy()  # type: ignore[operator]
    if network.cell is not None:
        state = network.cell.state_dict()
        for name, key in (("x", "weight_ih_l0"), ("h", "weight_hh_l0"), ("bx", "bias_ih_l0"), ("bh", "bias_hh_l0")):
            arrays[f"cell.{name}"] = state[key].numpy()
    if network.start is not None:
        table = network.start.weight.detach().numpy()
        arrays |= {f"start.{name}": table[i] for i, name in enumerate(names)}
    return {name: np.array(value, np.float32) for name, value in arrays.items()}
