"""Checkpoints: a folder with `config.json` and `model.safetensors`, fingerprinted by content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from failsight.core.errors import FailsightError
from failsight.core.textfiles import read_json_object
from failsight.policies.vla.config import TinyConfig
from failsight.policies.vla.damage import damage
from failsight.policies.vla.finite import require_finite_weights
from failsight.policies.vla.network import TinyVLA
from failsight.policies.vla.whole import require_finite


def save_checkpoint(network: TinyVLA, folder: Path) -> None:
    """Write the folder; existing files are replaced. Raises FailsightError when a weight is not finite."""
    require_finite_weights(network, folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(network.config.as_dict(), indent=1))
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "model.safetensors")


def load_checkpoint(folder: Path) -> tuple[TinyVLA, str]:
    """Network and fingerprint. Raises FailsightError with what was looked for and what to type."""
    config, weights = folder / "config.json", folder / "model.safetensors"
    if not (config.is_file() and weights.is_file()):
        raise FailsightError(
            f"No checkpoint in {folder.resolve()}: it must hold config.json and model.safetensors. "
            "Train one with: failsight train-policy --recipe tabletop"
        )
    data = read_json_object(config)
    if data.get("type") != "tiny":
        raise FailsightError(f"{config} is of type {data.get('type')!r}; this version loads 'tiny'.")
    with damage(config):
        network = TinyVLA(TinyConfig.from_dict(data))
    try:
        found = load_file(weights)
        network.load_state_dict(found)
    except (RuntimeError, SafetensorError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise FailsightError(
            f"{weights} does not fit its config.json or this version: {first} Train it again."
        ) from error
    require_finite(found, weights)
    return network, fingerprint(folder)


def fingerprint(folder: Path) -> str:
    """16 hex digits over weights and configuration (without its provenance, which changes nothing)."""
    config = read_json_object(folder / "config.json")
    config.pop("provenance", None)
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=8)
    digest.update((folder / "model.safetensors").read_bytes())
    return digest.hexdigest()
