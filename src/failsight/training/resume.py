"""What a training needs to go on exactly: optimizer moments, step, best so far, and what it was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from failsight.core.errors import FailsightError
from failsight.core.textfiles import read_json_object


class Resumable(Protocol):
    """The part of a training that is kept."""

    step: int
    best_value: float
    best_step: int
    optimizer: Any


def save_state(place: Path, identity: dict[str, Any], training: Resumable, scaler: Any) -> None:
    """Write `training.safetensors` and `training.json` into a checkpoint folder.

    Raises FailsightError when the optimizer holds a number that is not finite: it would never recover.
    """
    tensors: dict[str, Tensor] = {}
    for index, entries in training.optimizer.state_dict()["state"].items():
        tensors |= {f"{index}.{name}": torch.as_tensor(value).contiguous() for name, value in entries.items()}
    bad = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise FailsightError(
            f"The optimizer holds numbers that are not finite at step {training.step} ({bad[0]}); nothing of this step "
            "was kept. Lower --fit.learning-rate, or raise --fit.clip from 0."
        )
    save_file(tensors, place / "training.safetensors")
    data = {
        "step": training.step,
        "best_value": None if training.best_step < 0 else training.best_value,
        "best_step": training.best_step,
        "identity": identity,
        "scaler": None if scaler is None else scaler.state_dict(),
    }
    (place / "training.json").write_text(json.dumps(data))


def load_state(place: Path, identity: dict[str, Any], training: Resumable, scaler: Any) -> None:
    """Inverse of `save_state`. Raises FailsightError when the folder holds a training of other data or settings."""
    data = read_json_object(place / "training.json")
    known = data["identity"]
    for name in identity:
        if known.get(name) != identity[name]:
            raise FailsightError(
                f"{place.parent} holds a training with other {name}; choose another --out, or delete it."
            )
    training.step, training.best_step = data["step"], data["best_step"]
    training.best_value = float("nan") if data["best_value"] is None else data["best_value"]
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in load_file(place / "training.safetensors").items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = value
    groups = training.optimizer.state_dict()["param_groups"]
    training.optimizer.load_state_dict({"state": entries, "param_groups": groups})
    if scaler is not None and data["scaler"]:
        scaler.load_state_dict(data["scaler"])
