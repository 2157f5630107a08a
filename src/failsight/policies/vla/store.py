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
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from failsight.core.errors import FailsightError, SpecMismatchError, StorageError
from failsight.core.textfiles import read_json_object
from failsight.policies.vla.base import require_base
from failsight.policies.vla.damage import damage
from failsight.policies.vla.design import VLAConfig
from failsight.policies.vla.finite import require_finite_statistics, require_finite_weights
from failsight.policies.vla.model import VLAModel
from failsight.policies.vla.whole import require_fit


def save_model(
    model: VLAModel, config: VLAConfig, folder: Path, extra: Callable[[Path], None] = lambda place: None
) -> None:
    """Write the folder, `extra(folder)` included; it appears whole or not at all, and replaces an older one.

    Raises FailsightError, and leaves an older folder as it is, when a weight or a statistic is not finite.
    """
    require_finite_weights(model, folder)
    require_finite_statistics(config.statistics)
    _require_ours(folder)
    partial, old = _beside(folder, "partial"), older(folder)
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


def older(folder: Path) -> Path:
    """Where the checkpoint before stands for the moment between the two renames of `save_model`."""
    return _beside(folder, "old")


def _beside(folder: Path, state: str) -> Path:
    """A name that only we use, so that what we delete there is ours."""
    return folder.with_name(f".{folder.name}.failsight-{state}")


def _require_ours(folder: Path) -> None:
    """Refuse to replace what is no checkpoint."""
    if folder.exists() and not (folder / "config.json").is_file():
        raise StorageError(f"{folder} holds something else than a checkpoint; choose another --out, or move it away.")


def _head_state(model: VLAModel) -> dict[str, Tensor]:
    return {k: v.contiguous() for k, v in model.state_dict().items() if not k.startswith("backbone.")}


def read_config(folder: Path) -> VLAConfig:
    """Raises FailsightError when there is no checkpoint of this type."""
    path = folder / "config.json"
    if not path.is_file():
        raise FailsightError(
            f"No checkpoint in {folder.absolute()}: it has no config.json. Train one with: failsight train-policy --data FOLDER"
        )
    data = read_json_object(path)
    if data.get("type") != "vla":
        raise FailsightError(
            f"{path} is of type {data.get('type')!r}; a checkpoint of type 'vla' is wanted here. Train one with: "
            "failsight train-policy"
        )
    with damage(path):
        return VLAConfig.from_dict(data)


def load_model(folder: Path, source: str | None = None) -> VLAModel:
    """The model in evaluation mode; `source` replaces the recorded place of the base weights.

    Raises FailsightError when the checkpoint is missing or damaged, or the base weights are other ones.
    """
    if not folder.is_dir() and older(folder).is_dir():
        folder = older(folder)  # killed between the two renames of `save_model`
    config = read_config(folder)
    if source is not None:
        config = replace(config, backbone=replace(config.backbone, source=source))
    if config.backbone.family != "tiny" and config.backbone.tuning != "full":
        require_base(config.provenance, config.backbone, folder)
    with damage(folder / "config.json"):
        model = VLAModel(config, folder)
    restore(model, folder)
    model.config = config
    return model.eval()


def restore(model: VLAModel, folder: Path) -> None:
    """Weights of a checkpoint into a model of the same configuration. Raises FailsightError when they do not fit."""
    try:
        model.backbone.restore(folder)
        saved = load_file(folder / "head.safetensors")
        require_fit(saved, _head_state(model), folder / "head.safetensors")
        model.load_state_dict(model.state_dict() | saved)
    except (RuntimeError, SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        text = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
        raise FailsightError(
            f"{folder} does not fit its config.json or this version: {text} Train it again."
        ) from error


def continue_from(model: VLAModel, folder: Path) -> None:
    """Start a training from another checkpoint of the same network; only a failure head may be new.

    Raises SpecMismatchError naming what differs: actions, observations, any part of the cell, the units of its inputs
    and outputs, the base.
    """
    other = read_config(folder)
    for name, theirs, ours in _differing(other, model.config):
        raise SpecMismatchError(f"{folder} cannot be continued: its {name} is {theirs}, this training's is {ours}.")
    if other.backbone.family != "tiny" and other.backbone.tuning != "full":
        require_base(other.provenance, model.config.backbone, folder)
    model.backbone.restore(folder)
    saved, wanted = load_file(folder / "head.safetensors"), _head_state(model)
    if other.failure is None:
        wanted = {name: value for name, value in wanted.items() if not name.startswith("failure.")}
    require_fit(saved, wanted, folder / "head.safetensors")
    model.load_state_dict(model.state_dict() | saved)


def _differing(theirs: VLAConfig, ours: VLAConfig) -> Iterator[tuple[str, object, object]]:
    """(name, theirs, ours) of what must be equal for weights to keep their meaning."""
    names = [
        "action_spec",
        "observation_spec",
        "chunk",
        "head",
        "history",
        "use_state",
        "scheme",
        "reset_token",
        "auxiliary",
    ]
    names += ["vocabulary", "word_rule"] if ours.backbone.family == "tiny" else []
    names += ["failure"] if theirs.failure is not None else []
    for name in names:
        if getattr(theirs, name) != getattr(ours, name):
            yield name, getattr(theirs, name), getattr(ours, name)
    for name in ("family", "tuning", "lora_rank", "lora_alpha", "action_tokens", "layers", "image_size", "pixels",
                 "prompt", "width", "depth", "words", "attention"):  # fmt: skip
        if getattr(theirs.backbone, name) != getattr(ours.backbone, name):
            yield f"backbone.{name}", getattr(theirs.backbone, name), getattr(ours.backbone, name)


def fingerprint(folder: Path) -> str:
    """16 hex digits over all that decides: configuration (of its provenance only the base's identity), every weight file,
    and what else a backbone trained in full is loaded from.
    """
    config = read_json_object(folder / "config.json")
    known = config.pop("provenance", {})
    base = json.dumps(known["base"], sort_keys=True) if "base" in known else known.get("base_hash", "")
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True).encode() + base.encode(), digest_size=8)
    weights = [path for path in sorted(folder.rglob("*.safetensors")) if path.name != "training.safetensors"]
    whole = folder / "backbone"  # of a policy trained in full: also its configuration, tokenizer and picture scaling
    for path in (*weights, *sorted(p for p in whole.rglob("*") if p.is_file() and p not in weights)):
        digest.update(path.read_bytes())
    return digest.hexdigest()
