"""Checkpoint folders of trained policies.

    config.json            type, cell, specs, statistics, provenance (the base weights' hash among it)
    adapter/ | backbone/ | backbone.safetensors    low-rank updates | everything | `tiny`
    head.safetensors       action head, state encoder, failure head
    processor/             tokenizer
    dataset_statistics.json   the same statistics in OpenVLA's shape, for other tools

Frozen weights are not copied; their hash is, and it is checked on loading.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from failsight.core.errors import FailsightError, SpecMismatchError, StorageError
from failsight.policies.vla.backbone import resolve_source, weights_hash
from failsight.policies.vla.design import VLAConfig
from failsight.policies.vla.model import VLAModel


def save_model(
    model: VLAModel, config: VLAConfig, folder: Path, extra: Callable[[Path], None] = lambda place: None
) -> None:
    """Write the folder, `extra(folder)` included; it appears whole or not at all, and replaces an older one."""
    partial, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / "config.json").write_text(json.dumps(config.as_dict(), indent=1))
        model.backbone.save(partial)
        save_file(_head_state(model), partial / "head.safetensors")
        name = str(config.provenance.get("data", "data"))
        (partial / "dataset_statistics.json").write_text(json.dumps({name: config.statistics}, indent=1))
        extra(partial)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"Cannot write {folder}: {error.strerror}. Free disk space or choose another folder."
        ) from error


def _head_state(model: VLAModel) -> dict[str, Tensor]:
    return {k: v.contiguous() for k, v in model.state_dict().items() if not k.startswith("backbone.")}


def read_config(folder: Path) -> VLAConfig:
    """Raises FailsightError when there is no checkpoint of this type."""
    path = folder / "config.json"
    if not path.is_file():
        raise FailsightError(
            f"No checkpoint in {folder.absolute()}: it has no config.json. Train one with: failsight train-policy --data FOLDER"
        )
    data = json.loads(path.read_text())
    if data.get("type") != "vla":
        raise FailsightError(f"{path} is of type {data.get('type')!r}; a checkpoint of type 'vla' is wanted here.")
    return VLAConfig.from_dict(data)


def load_model(folder: Path, source: str | None = None) -> VLAModel:
    """The model in evaluation mode; `source` replaces the recorded place of the base weights.

    Raises FailsightError when the checkpoint is missing or damaged, or the base weights are other ones.
    """
    if not folder.is_dir() and folder.with_name(folder.name + ".old").is_dir():
        folder = folder.with_name(folder.name + ".old")  # killed between the two renames of `save_model`
    config = read_config(folder)
    if source is not None:
        config = replace(config, backbone=replace(config.backbone, source=source))
    if config.backbone.family != "tiny" and config.backbone.tuning != "full":
        _require_base(config, folder)
    model = VLAModel(config, folder)
    restore(model, folder)
    model.config = config
    return model.eval()


def _require_base(config: VLAConfig, folder: Path) -> None:
    found = weights_hash(resolve_source(config.backbone))
    wanted = config.provenance.get("base_hash", found)
    if found != wanted:
        raise FailsightError(
            f"{folder} was trained on base weights {wanted} and {config.backbone.source} now holds {found}; "
            "point --source at the original weights, or train again."
        )


def restore(model: VLAModel, folder: Path) -> None:
    """Weights of a checkpoint into a model of the same configuration. Raises FailsightError when they do not fit."""
    try:
        model.backbone.restore(folder)
        state = model.state_dict() | load_file(folder / "head.safetensors")
        model.load_state_dict(state)
    except (RuntimeError, SafetensorError, OSError, ValueError, KeyError) as error:
        text = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
        raise FailsightError(
            f"{folder} does not fit its config.json or this version: {text} Train it again."
        ) from error


def continue_from(model: VLAModel, folder: Path) -> None:
    """Start a training from another checkpoint. Raises SpecMismatchError when it means other actions or observations."""
    other = read_config(folder)
    for name in ("action_spec", "observation_spec", "chunk", "head", "history"):
        if getattr(other, name) != getattr(model.config, name):
            raise SpecMismatchError(
                f"{folder} cannot be continued: its {name} is {getattr(other, name)}, this training's is "
                f"{getattr(model.config, name)}."
            )
    model.backbone.restore(folder)
    saved = load_file(folder / "head.safetensors")
    state = model.state_dict()
    state |= {name: value for name, value in saved.items() if name in state and state[name].shape == value.shape}
    model.load_state_dict(state)


def fingerprint(folder: Path) -> str:
    """16 hex digits over configuration (without provenance) and every weight file."""
    config = json.loads((folder / "config.json").read_text())
    base = config.pop("provenance", {}).get("base_hash", "")
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True).encode() + base.encode(), digest_size=8)
    for path in sorted(folder.rglob("*.safetensors")):
        if path.name != "training.safetensors":
            digest.update(path.read_bytes())
    return digest.hexdigest()
