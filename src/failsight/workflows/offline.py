"""Losses of a trained policy on recorded episodes it did or did not see."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from failsight.core.errors import FailsightError
from failsight.evaluation.intervals import Estimate, bootstrap
from failsight.policies.vla.model import VLAModel
from failsight.policies.vla.store import load_model
from failsight.training.sampling import flow_draws
from failsight.training.windows import Windows
from failsight.workflows.data_sets import open_data
from failsight.workflows.train import split_of

_MOST = 1024
"""Windows looked at, evenly spaced."""


Part = Literal["all", "train", "validation"]


def validation_error(checkpoint: Path, data_path: Path, part: Part) -> Estimate:
    """Mean action loss over windows of a data set, bootstrapped over episodes.

    `train` and `validation` are the episodes of the checkpoint's own random split of this data set. Raises FailsightError
    when it was trained on other data.
    """
    data = open_data(data_path)
    model = load_model(checkpoint)
    config = model.config
    episodes: tuple[int, ...] = tuple(range(len(data.episodes)))
    if part != "all":
        if config.provenance.get("data_fingerprint") != data.fingerprint:
            raise FailsightError(
                f"{checkpoint} was not trained on {data_path} as it is now, so nobody knows its split."
            )
        seed = int(config.provenance["fit"]["seed"])
        total = int(config.provenance["episodes"]) + int(config.provenance["validation_episodes"])
        share = int(config.provenance["validation_episodes"]) / max(1, total)
        split = split_of(data, config.provenance["hold_out"], share, seed)
        episodes = split.train if part == "train" else split.valid
    windows = Windows(data, config, episodes, None)
    rows = np.unique(np.linspace(0, len(windows) - 1, min(len(windows), _MOST)).astype(int))
    errors = np.array([_error(model, windows, int(row)) for row in rows])
    owners = [name.rsplit(":", 1)[0] for name in windows.describe(rows)]
    unique = sorted(set(owners))
    per_episode = np.array([errors[[o == name for o in owners]].mean() for name in unique])
    return bootstrap(lambda r: float(per_episode[r].mean()), ["all"] * len(unique), (str(data.fingerprint), part))


def _error(model: VLAModel, windows: Windows, row: int) -> float:
    batch = windows.batch(np.array([row]), None)
    config = model.config
    draws = None
    if config.head.draws:
        draws = flow_draws(np.array([row]), -1, 0, config.history.window, config.chunk * config.actions)
    with torch.no_grad():
        return float(model(batch, draws)["action"])


class Memory(NamedTuple):
    """Whether a policy's losses and drives speak of memory."""

    remembers: bool
    sentence: str


def judge_memory(trained: Estimate, held_out: Estimate, seen: Estimate, unseen: Estimate) -> Memory:
    """Call it memory when what was held out is worse, in loss or in the simulator, beyond the intervals.

    Args:
        trained: loss on training episodes.
        held_out: loss on scenarios that were held out.
        seen: closed-loop success in scenarios that were trained on.
        unseen: closed-loop success in scenarios that were held out.
    """
    losses = f"loss {trained.value:.3f} on training episodes, {held_out.value:.3f} on held-out scenarios"
    drives = f"success {seen.value:.2f} in seen and {unseen.value:.2f} in held-out scenarios"
    worse = []
    if held_out.low > 2 * trained.high:
        worse.append("its loss more than doubles where it has not been")
    if unseen.high < seen.low:
        worse.append("it succeeds less where it has not been")
    if worse:
        return Memory(True, f"It remembers: {' and '.join(worse)} ({losses}; {drives}).")
    return Memory(False, f"Nothing speaks of memory: {losses}; {drives}.")
