"""Fitting the SALUS-style network: 6-64-64-4, weighted BCE on failure types, every step an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failsight.core.types import FAILURE_TYPES, Array
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.features import Whitening
from failsight.predictors.hazard import SOON
from failsight.predictors.mlp import MlpPredictor
from failsight.signals.bank import UNCERTAINTY_NAMES


def fit_mlp(
    train: Sequence[LabelledSequence],
    validate: Sequence[LabelledSequence],
    seed: int = 0,
    epochs: int = 40,
    inputs: int = len(UNCERTAINTY_NAMES),
) -> MlpPredictor:
    """Positive weights balance each type; the epoch with the lowest loss on `validate` is kept, without one the last.

    `inputs` is how many signals of the bank it reads: the six of SALUS by default.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    whitening = Whitening.fit(np.concatenate([s.signals[:, :inputs] for s in train]), None)
    x, y = _examples(train, whitening, inputs)
    held = _examples(validate, whitening, inputs) if validate else None
    network = nn.Sequential(
        nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, len(FAILURE_TYPES))
    )
    weight = positive_weights(y)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-4)
    best, best_state = float("inf"), network.state_dict()
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x)), 1024):
            loss = salus_loss(network(x[rows]), y[rows], weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if held is None:
            continue
        with torch.no_grad():
            value = float(salus_loss(network(held[0]), held[1], weight))
        if value < best:
            best, best_state = value, {k: v.clone() for k, v in network.state_dict().items()}
    return MlpPredictor({"mean": whitening.mean, "scale": whitening.scale, **_export(best_state)})


def positive_weights(y: Tensor) -> Tensor:
    """(4,) steps without a type / steps with it, at most 50: as many failing steps as normal ones, in effect."""
    positive = y.sum(0)
    return ((len(y) - positive) / positive.clamp(min=1)).clamp(max=50)


def salus_loss(logits: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Mean () over steps and types of the BCE of logits and `y`, (N, 4) each; positive steps count `weight` (4,)."""
    return F.binary_cross_entropy_with_logits(logits, y, pos_weight=weight)


def _export(state: Mapping[str, Tensor]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for layer, at in enumerate((0, 2, 4)):
        arrays[f"w{layer}"] = state[f"{at}.weight"].numpy()
        arrays[f"b{layer}"] = state[f"{at}.bias"].numpy()
    return arrays


def _examples(sequences: Sequence[LabelledSequence], whitening: Whitening, inputs: int) -> tuple[Tensor, Tensor]:
    """Every step with its episode's type; steps more than a second before the onset count as normal."""
    xs, ys = [], []
    for s in sequences:
        y = np.zeros((len(s.signals), len(FAILURE_TYPES)), np.float32)
        if s.onset is not None:
            y[max(0, s.onset - s.edges[SOON]) :, s.kind] = 1.0
        xs.append(whitening.apply(s.signals[:, :inputs], None))
        ys.append(y)
    return torch.from_numpy(np.concatenate(xs)), torch.from_numpy(np.concatenate(ys))
