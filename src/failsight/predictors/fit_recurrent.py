"""Fitting the recurrent ensemble in torch: bootstrapped members, hazard + type + dimension losses, best epoch kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from failsight.core.errors import FailsightError
from failsight.core.rng import keyed_rng
from failsight.core.types import FAILURE_TYPES, Array
from failsight.predictors.dataset import LabelledSequence, shared_edges
from failsight.predictors.features import Whitening
from failsight.predictors.hazard import BINS, SOON, UNKNOWN
from failsight.predictors.recurrent import RecurrentPredictor

_BEFORE_S, _ELSEWHERE = 2, 0.1
"""Seconds before the onset from which the type is learned, and the weight of the other steps."""

Progress = Callable[[int, int, float], None]
"""Member, epoch, validation loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentOptions:
    """Dials of the fit."""

    members: int = 5
    units: int = 64
    epochs: int = 30
    batch: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    dropout: float = 0.2
    after_onset: float = 0.25
    """Weight of steps after the onset: the episode is lost, little is left to learn."""
    use_hidden: bool = True
    seed: int = 0


class Member(nn.Module):
    """One member of the ensemble."""

    def __init__(self, inputs: int, units: int, actions: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, units)
        self.gru = nn.GRU(units, units, batch_first=True)
        self.head = nn.Linear(units, BINS + len(FAILURE_TYPES) + actions)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, inputs) -> (B, T, BINS + 4 + A)."""
        entered = F.relu(self.enter(self.dropout(x)))
        memory, _ = self.gru(entered)
        out: Tensor = self.head(self.dropout(memory))
        return out


@dataclass(slots=True)
class Padded:
    """Sequences as padded tensors (N, T, ...); weight 0 marks padding."""

    x: Tensor
    bins: Tensor
    kind: Tensor
    dimension: Tensor
    weight: Tensor
    type_weight: Tensor
    """(N, T) what a step counts in learning the type: `type_weights`."""


def pad(sequences: Sequence[LabelledSequence], whitening: Whitening, after_onset: float) -> Padded:
    """Whitened, padded tensors."""
    steps = max(len(s.signals) for s in sequences)
    count, inputs, actions = len(sequences), len(whitening.mean), sequences[0].dimension.shape[1]
    x = np.zeros((count, steps, inputs), np.float32)
    bins = np.zeros((count, steps), np.int64)
    dimension = np.zeros((count, steps, actions), np.float32)
    weight = np.zeros((count, steps), np.float32)
    for i, s in enumerate(sequences):
        length = len(s.signals)
        x[i, :length] = whitening.apply(s.signals, s.hidden if whitening.hidden else None)
        bins[i, :length], dimension[i, :length] = s.bins, s.dimension
        weight[i, :length] = 1.0
        if s.onset is not None:
            weight[i, s.onset + 1 : length] = after_onset
    kind = np.array([s.kind for s in sequences])
    when = type_weights(sequences)
    return Padded(*(torch.from_numpy(a) for a in (x, bins, kind, dimension, weight, when)))


def type_weights(sequences: Sequence[LabelledSequence]) -> Array:
    """(N, T) float32: where the type is to be learned, and how much.

    Steps from two seconds before the onset to just under a quarter after it count 1, the rest of a failure 0.1 (all of it 1
    where the onset is not known); then every episode adds up to 1 / episodes of its type. A type is wanted when it can
    still be acted on, and a timeout of 160 steps is no better example than a collision of 40.
    """
    weights = np.zeros((len(sequences), max(len(s.signals) for s in sequences)), np.float32)
    counts = Counter(s.kind for s in sequences)
    for row, s in zip(weights, sequences, strict=True):
        if s.kind < 0:
            continue
        row[: len(s.signals)] = 1.0 if s.onset is None else _ELSEWHERE
        if s.onset is not None:
            row[max(0, s.onset - _BEFORE_S * s.edges[SOON]) : min(len(s.signals), s.onset + s.edges[1])] = 1.0
        row /= row.sum() * counts[s.kind]
    return weights


def loss_of(out: Tensor, part: Padded) -> Tensor:
    """Hazard likelihood + dimension BCE, weighted mean over steps, + type cross-entropy around the onset of failures.

    `out` is (N, T, BINS + 4 + A). Where nobody knows when an episode was lost, the hazards are only asked to add up to
    its failure.
    """
    hazard_logits = out[..., :BINS]
    reached = torch.arange(BINS) <= part.bins[..., None]
    event = torch.arange(BINS) == part.bins[..., None]
    each = F.binary_cross_entropy_with_logits(hazard_logits, event.float(), reduction="none")
    survives = -F.softplus(hazard_logits).sum(-1)
    fails = -torch.log(-torch.expm1(survives.clamp(max=-1e-6)))
    hazard = torch.where(part.bins == UNKNOWN, fails, (each * reached).sum(-1))
    kinds = out[..., BINS : BINS + len(FAILURE_TYPES)]
    target = part.kind.clamp(min=0)[:, None].expand(hazard.shape)
    kind = F.cross_entropy(kinds.flatten(0, 1), target.flatten(), reduction="none").view_as(hazard)
    kind = (kind * part.type_weight).sum() / part.type_weight.sum().clamp(min=1e-9)
    dims = torch.zeros_like(hazard)
    if part.dimension.shape[-1]:
        risks = out[..., BINS + len(FAILURE_TYPES) :]
        dims = F.binary_cross_entropy_with_logits(risks, part.dimension, reduction="none").mean(-1)
    total = ((hazard + 2.0 * dims) * part.weight).sum() / part.weight.sum()
    result: Tensor = total + 0.5 * kind
    return result


def fit_recurrent(
    train: Sequence[LabelledSequence],
    validate: Sequence[LabelledSequence],
    options: RecurrentOptions,
    log_dir: Path | None = None,
    progress: Progress | None = None,
    indices: Sequence[int] | None = None,
    log: Array | None = None,
) -> RecurrentPredictor:
    """Fit on `train`, keep each member's best epoch on `validate`; same inputs and seed give the same weights.

    `indices` fits only those members (`merge_members` puts an ensemble together that was fitted in several processes);
    `log` (S,) bool marks the signals to take the logarithm of when they are not failsight's own.
    Runs on one thread: sums over several threads round differently from machine to machine.
    """
    torch.set_num_threads(1)
    hidden = None
    if options.use_hidden and train[0].hidden is not None:
        hidden = np.concatenate([np.asarray(s.hidden) for s in train])
    whitening = Whitening.fit(np.concatenate([s.signals for s in train]), hidden, log)
    data, held_out = (pad(part, whitening, options.after_onset) for part in (train, validate or train))
    writer = SummaryWriter(str(log_dir)) if log_dir is not None else None
    members = [_fit_member(i, data, held_out, options, writer, progress) for i in indices or range(options.members)]
    if writer is not None:
        writer.close()
    arrays = {**_export(members, whitening), "edges": np.array(shared_edges((*train, *validate)))}
    untyped = {"untyped": np.ones(())} if all(s.kind < 0 for s in train) else {}
    return RecurrentPredictor({**arrays, **untyped})


def merge_members(parts: Sequence[RecurrentPredictor]) -> RecurrentPredictor:
    """One ensemble from members that were fitted apart on the same data."""
    shared = ("mean", "scale", "signals", "log", "edges", "untyped")
    first = parts[0].arrays
    arrays = {name: first[name] for name in shared if name in first}
    arrays |= {n: np.concatenate([part.arrays[n] for part in parts]) for n in first if n not in shared}
    return RecurrentPredictor(arrays)


def _fit_member(
    index: int,
    data: Padded,
    held_out: Padded,
    options: RecurrentOptions,
    writer: SummaryWriter | None,
    progress: Progress | None,
) -> Member:
    torch.manual_seed(options.seed * 1000 + index)
    rng = keyed_rng(options.seed, "member", index)
    count = len(data.x)
    member = Member(data.x.shape[-1], options.units, data.dimension.shape[-1], options.dropout)
    optimizer = torch.optim.AdamW(member.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    drawn = rng.integers(count, size=count) if index else np.arange(count)
    steps = options.epochs * max(1, count // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, total_steps=steps + 1)
    best, best_state = float("inf"), {k: v.clone() for k, v in member.state_dict().items()}
    for epoch in range(options.epochs):
        member.train()
        order = drawn[rng.permutation(count)]
        for at in range(max(1, count // options.batch)):
            rows = torch.from_numpy(order[at * options.batch : (at + 1) * options.batch])
            part = _rows(data, rows)
            loss = loss_of(member(part.x), part)
            if not torch.isfinite(loss):
                raise FailsightError(f"The predictor's loss is not finite in epoch {epoch}; check the signals for NaN.")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(member.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        member.eval()
        with torch.no_grad():
            value = float(loss_of(member(held_out.x), held_out))
        if value < best:
            best, best_state = value, {k: v.clone() for k, v in member.state_dict().items()}
        if writer is not None:
            writer.add_scalar(f"member{index}/train", float(loss.detach()), epoch)
            writer.add_scalar(f"member{index}/valid", value, epoch)
        if progress is not None:
            progress(index, epoch, value)
    member.load_state_dict(best_state)
    return member.eval()


def _rows(data: Padded, rows: Tensor) -> Padded:
    longest = int((data.weight[rows] > 0).sum(1).max())
    parts = (data.x, data.bins, data.dimension, data.weight, data.type_weight)
    x, bins, dimension, weight, when = (p[rows, :longest] for p in parts)
    return Padded(x, bins, data.kind[rows], dimension, weight, when)


def _export(members: Sequence[Member], whitening: Whitening) -> dict[str, Array]:
    def stack(name: str) -> Array:
        return np.stack([m.state_dict()[name].numpy() for m in members]).astype(np.float32)

    return {
        "mean": whitening.mean,
        "scale": whitening.scale,
        "signals": np.array([whitening.signals]),
        "log": whitening.log,
        "enter_w": stack("enter.weight"),
        "enter_b": stack("enter.bias"),
        "gru_x": stack("gru.weight_ih_l0"),
        "gru_h": stack("gru.weight_hh_l0"),
        "bias_x": stack("gru.bias_ih_l0"),
        "bias_h": stack("gru.bias_hh_l0"),
        "head_w": stack("head.weight"),
        "head_b": stack("head.bias"),
    }
