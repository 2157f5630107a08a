"""Fitting the networks of `predictors.network` in torch: one loop, one loss menu, early stopping where asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failsight.core.errors import FailsightError
from failsight.core.types import Array
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.early_stop import Stopping, early_auc, quarter_lengths, set_aside
from failsight.predictors.hazard import SOON
from failsight.predictors.inputs import episode_inputs, fit_inputs
from failsight.predictors.losses import Batch, LossOptions, loss_of
from failsight.predictors.network import Design, NetworkPredictor
from failsight.predictors.words import embed

_NECK = 16
"""Numbers an instruction is squeezed into before it starts the cell, as in ActProbe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Dials of a fit."""

    loss: LossOptions = field(default_factory=LossOptions)
    epochs: int = 40
    batch: int = 0
    """Episodes per step; 0: all."""
    learning_rate: float = 5e-3
    weight_decay: float = 0.05
    optimizer: Literal["adamw", "adam"] = "adamw"
    """How weights decay: apart from the gradient, or as part of it."""
    cosine: bool = True
    """The learning rate falls to 0 over `epochs`; else it stays."""
    clip: float = 1.0
    """Largest norm of a gradient; 0: any."""
    dropout: float = 0.2
    """Of the inputs and before the score."""
    memory_dropout: float = 0.0
    """Of the cell's output."""
    skip_first: int = 0
    """First steps of an episode that do not count."""
    balance: bool = False
    """Every episode counts alike whatever its length, and both outcomes together alike."""
    stopping: Stopping = field(default_factory=Stopping)
    seed: int = 0


class _Network(nn.Module):
    """Torch twin of `NetworkPredictor`."""

    def __init__(self, design: Design, width: int, outputs: int, dropout: float, memory_dropout: float = 0.0) -> None:
        super().__init__()
        self.design, self.dropout, self.memory_dropout = design, nn.Dropout(dropout), nn.Dropout(memory_dropout)
        cells = {"gru": nn.GRU, "lstm": nn.LSTM}
        self.cell = cells[design.cell](width, design.units, batch_first=True) if design.cell != "none" else None
        entering = width if self.cell is None else design.units + (width if design.skip else 0)
        widths = (entering, *design.layers, outputs)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.start = nn.ModuleDict()
        if design.text:
            self.start["neck"] = nn.Linear(design.text, _NECK)
            self.start["h"], self.start["c"] = nn.Linear(_NECK, design.units), nn.Linear(_NECK, design.units)
        self.foresee = nn.Linear(design.units or entering, width)

    def forward(self, x: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, W), (N, text) -> logits (N, T, outputs), memory (N, T, U)."""
        if self.design.unit_length:
            x = F.normalize(x, dim=-1, eps=1e-6)
        x = self.dropout(x)
        memory = self.memory_dropout(self._remember(x, text))
        seen = torch.cat([memory, x], -1) if self.design.skip and self.cell is not None else memory
        for layer in self.layers[:-1]:
            seen = F.relu(layer(seen))
        return self.layers[-1](self.dropout(seen)), memory

    def _remember(self, x: Tensor, text: Tensor) -> Tensor:
        if self.cell is None:
            return x
        if not self.design.text:
            return self.cell(x)[0]  # type: ignore[no-any-return]
        seen = F.relu(self.start["neck"](text))
        h, c = self.start["h"](seen)[None], self.start["c"](seen)[None]
        return self.cell(x, (h, c) if self.design.cell == "lstm" else h)[0]  # type: ignore[no-any-return]


class _Tensors(NamedTuple):
    """Padded episodes."""

    x: Tensor
    """(N, T, W)."""
    batch: Batch
    dimension: Tensor
    """(N, T, A)."""
    text: Tensor
    """(N, words of the instruction as a vector)."""

    def rows(self, rows: Tensor) -> _Tensors:
        """Some of the episodes."""
        return _Tensors(
            self.x[rows], Batch(*(values[rows] for values in self.batch)), self.dimension[rows], self.text[rows]
        )


class _Look(NamedTuple):
    """Episodes that were set aside, and how far their scores are looked at."""

    data: _Tensors
    ends: Array


def fit_network(
    kind: type[NetworkPredictor], train: Sequence[LabelledSequence], columns: Sequence[str], options: TrainOptions
) -> NetworkPredictor:
    """Fit a registered network on training episodes; the same inputs and seed give the same weights (one thread).

    With early stopping, some of them are set aside first and only decide which epoch is kept.
    """
    torch.set_num_threads(1)
    kept, aside = (list(train), [])
    if options.stopping.patience:
        parts = set_aside(train, options.seed)
        kept, aside = [train[i] for i in parts.kept], [train[i] for i in parts.aside]
    arrays, inputs = fit_inputs(kept, columns, kind.design.inputs)
    data = _tensors(kept, inputs, options, kind.design.text)
    look = _look(kind, kept, aside, arrays, options) if aside else None
    outputs = 1 + (data.dimension.shape[2] if kind.design.per_dimension else 0)
    torch.manual_seed(options.seed)
    network = _Network(kind.design, data.x.shape[2], outputs, options.dropout, options.memory_dropout)
    epochs = options.stopping.blind if options.stopping.patience and look is None else options.epochs
    _train(network, data, look, replace(options, epochs=epochs), kind.name)
    return kind({**arrays, **_export(network.eval())})


def _look(
    kind: type[NetworkPredictor],
    kept: Sequence[LabelledSequence],
    aside: Sequence[LabelledSequence],
    arrays: dict[str, Array],
    options: TrainOptions,
) -> _Look:
    lengths = quarter_lengths(kept)
    ends = [min(lengths.get(s.task, len(s.signals)), len(s.signals)) for s in aside]
    inputs = [x[: max(ends)] for x in episode_inputs(aside, arrays, kind.design.inputs)]
    return _Look(_tensors(aside, inputs, options, kind.design.text, max(ends)), np.array(ends))


def _train(network: _Network, data: _Tensors, look: _Look | None, options: TrainOptions, name: str) -> None:
    """All epochs, or until the episodes set aside are ranked no better; the best weights are put back."""
    optimizer = _optimizer(network, options)
    size = options.batch or len(data.x)
    count = math.ceil(len(data.x) / size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * count)
    best, best_epoch, best_state = -1.0, 0, None
    for epoch in range(1, options.epochs + 1):
        network.train()
        for rows in torch.split(torch.randperm(len(data.x)), size):
            loss = _step_loss(network, data.rows(rows), options)
            if not torch.isfinite(loss):
                raise FailsightError(f"The loss of {name} is not finite in epoch {epoch}; check the signals for NaN.")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if options.clip:
                torch.nn.utils.clip_grad_norm_(network.parameters(), options.clip)
            optimizer.step()
            if options.cosine:
                schedule.step()
        if look is None or epoch % options.stopping.every:
            continue
        value = _ranking(network.eval(), look)
        if value > best:
            best, best_epoch, best_state = value, epoch, {k: v.clone() for k, v in network.state_dict().items()}
        elif epoch - best_epoch >= options.stopping.patience:
            break
    if best_state is not None:
        network.load_state_dict(best_state)


def _optimizer(network: _Network, options: TrainOptions) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return kind(network.parameters(), options.learning_rate, weight_decay=options.weight_decay)


def _ranking(network: _Network, look: _Look) -> float:
    with torch.no_grad():
        scores = network(look.data.x, look.data.text)[0][..., 0]
    if network.design.cumulative:
        scores = torch.sigmoid(scores).cumsum(1)
    return early_auc(scores.numpy(), look.data.batch.failed.numpy(), look.ends)


def _step_loss(network: _Network, data: _Tensors, options: TrainOptions) -> Tensor:
    x, batch = data.x, data.batch
    logits, memory = network(x, data.text)
    loss = loss_of(logits[..., 0], memory, batch, options.loss)
    if network.design.per_dimension and data.dimension.shape[2]:
        each = F.binary_cross_entropy_with_logits(logits[..., 1:], data.dimension, reduction="none").mean(-1)
        loss = loss + (each * batch.mask).sum() / batch.mask.sum()
    if options.loss.patterns:
        error = (network.foresee(memory[:, :-1]) - x[:, 1:]) ** 2
        weight = batch.mask[:, 1:, None]
        loss = loss + options.loss.patterns * (error * weight).sum() / (weight.sum() * x.shape[2]).clamp(min=1)
    return loss


def _tensors(
    train: Sequence[LabelledSequence], inputs: list[Array], options: TrainOptions, text: int, limit: int = 0
) -> _Tensors:
    """Padded inputs and labels; episodes are cut at `limit`, by default twice the median successful length."""
    good = [len(s.signals) for s in train if not s.failed] or [len(s.signals) for s in train]
    limit = limit or min(max(len(s.signals) for s in train), 2 * int(np.median(good)))
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
            lost[i, 0 if s.onset is None else max(0, s.onset - s.edges[SOON]) : n] = 1.0
    failed = np.array([s.failed for s in train], np.float32)
    if options.loss.phases:
        mask = _phases(mask, failed, lengths)
    if options.balance:
        mask = _balance(mask, failed)
    names = sorted({s.task for s in train})
    task = np.array([names.index(s.task) for s in train])
    words = (
        np.stack([embed(s.instruction or s.task, text) for s in train]) if text else np.zeros((count, 0), np.float32)
    )
    parts = (torch.from_numpy(a) for a in (failed, mask, task, lengths, lost))
    return _Tensors(torch.from_numpy(x), Batch(*parts), torch.from_numpy(dimension), torch.from_numpy(words))


def _balance(mask: Array, failed: Array) -> Array:
    """Every episode's weights add up to n / (2 n of its outcome)."""
    share = np.where(failed > 0, failed.mean(), 1 - failed.mean())
    return np.asarray(mask / mask.sum(1, keepdims=True) / (2 * share[:, None]), np.float32)


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


def _export(network: _Network) -> dict[str, Array]:
    arrays = {}
    for i, layer in enumerate(network.layers):
        arrays[f"w{i}"], arrays[f"b{i}"] = layer.weight.detach().numpy(), layer.bias.detach().numpy()  # type: ignore[operator]
    if network.cell is not None:
        state = network.cell.state_dict()
        for name, key in (("x", "weight_ih_l0"), ("h", "weight_hh_l0"), ("bx", "bias_ih_l0"), ("bh", "bias_hh_l0")):
            arrays[f"cell.{name}"] = state[key].numpy()
    for part, name in (("neck", "text"), ("h", "text.h"), ("c", "text.c")):
        if part in network.start:
            layer = network.start[part]
            arrays[f"{name}.w"], arrays[f"{name}.b"] = layer.weight.detach().numpy(), layer.bias.detach().numpy()  # type: ignore[operator]
    return {name: np.array(value, np.float32) for name, value in arrays.items()}
