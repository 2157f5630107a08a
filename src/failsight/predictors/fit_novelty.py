"""Fitting the success-only novelty scores in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from failsight.core.types import Array
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.inputs import episode_inputs, fit_inputs
from failsight.predictors.novelty import INPUTS, FiperPredictor, LogpZo, NoveltyPredictor, Rnd

_WIDTH, _EPOCHS, _BATCH = 96, 60, 256


def fit_novelty(
    kind: type[NoveltyPredictor], train: Sequence[LabelledSequence], columns: Sequence[str], seed: int
) -> NoveltyPredictor:
    """Fit on the steps of successful training episodes."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    good = [s for s in train if not s.failed] or list(train)
    arrays, inputs = fit_inputs(good, columns, INPUTS)
    x = torch.from_numpy(np.concatenate(inputs))
    size = x.shape[1]
    if issubclass(kind, Rnd):
        teacher, student = _layers(size, size), _layers(size, size)
        for parameter in teacher.parameters():
            parameter.requires_grad_(False)
        _train(student, lambda rows: ((student(x[rows]) - teacher(x[rows])) ** 2).mean(), len(x))
        return kind({**arrays, **_export("student", student), **_export("teacher", teacher)})
    assert issubclass(kind, LogpZo)
    flow = _layers(size + 1, size)
    _train(flow, lambda rows: _flow_loss(flow, x[rows]), len(x))
    return kind({**arrays, **_export("student", flow)})


def fit_fiper(train: Sequence[LabelledSequence], columns: Sequence[str], seed: int) -> FiperPredictor:
    """RND on successes, and the usual size of both scores there."""
    rnd = fit_novelty(Rnd, train, columns, seed)
    column = list(columns).index("action_entropy")
    good = [s for s in train if not s.failed] or list(train)
    novelty = np.array([rnd.novelty(x) for part in episode_inputs(good, rnd.arrays, INPUTS) for x in part])
    entropy = np.concatenate([s.signals[:, column] for s in good]).astype(np.float64)
    scales = {
        "novelty.scale": np.array([novelty.mean(), max(float(novelty.std()), 1e-9)]),
        "entropy.scale": np.array([np.nanmean(entropy), max(float(np.nanstd(entropy)), 1e-9)]),
    }
    return FiperPredictor({**rnd.arrays, **scales, "entropy.column": np.array(column)})


def _flow_loss(flow: nn.Module, x: Tensor) -> Tensor:
    time, noise = torch.rand(len(x), 1), torch.randn_like(x)
    at = torch.cat([(1 - time) * x + time * noise, time], 1)
    result: Tensor = ((flow(at) - (noise - x)) ** 2).mean()
    return result


def _layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, outputs)
    )


def _train(network: nn.Module, loss_on: Callable[[Tensor], Tensor], count: int) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(_EPOCHS):
        for rows in torch.split(torch.randperm(count), _BATCH):
            loss = loss_on(rows)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _export(prefix: str, network: nn.Sequential) -> dict[str, Array]:
    arrays = {}
    for layer, at in enumerate((0, 2, 4)):
        part = network[at]
        arrays[f"{prefix}.w{layer}"] = part.weight.detach().numpy()  # type: ignore[operator]
        arrays[f"{prefix}.b{layer}"] = part.bias.detach().numpy()  # type: ignore[operator]
    return arrays
