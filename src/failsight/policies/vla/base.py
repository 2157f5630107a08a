"""The model a policy starts from: where it lies, and an identity of everything in it that decides what the policy does.

A checkpoint with low-rank updates or frozen weights holds only differences, so it is worth nothing on another base. The
identity is of contents (weights in the file format that is loaded, configuration, tokenizer, picture scaling), so names,
paths and revisions that move do not matter and changed bytes do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from failsight.core.contents import content_of
from failsight.core.errors import FailsightError
from failsight.core.textfiles import read_json_object
from failsight.policies.vla.design import BackboneConfig
from failsight.policies.vla.pixels import pixel_scaling

_CHOICE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Weight files in the order in which transformers prefers them."""
_TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json")
_UNIMPORTANT = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")
"""Entries of config.json that change without changing the model (weights are always read as float32)."""
_TEXTS = ["*.json", "*.txt", "*.model", "*.jinja"]


def resolve_source(config: BackboneConfig) -> Path:
    """The folder of a model: a local one as it is, else the cached copy of a hub id's revision, fetched if need be.

    Raises FailsightError that says which paths were tried and what to type.
    """
    path = Path(config.source).expanduser()
    if (path / "config.json").is_file():
        return path
    looks_local = config.source.startswith((".", "/", "~")) or config.source.count("/") > 1 or path.exists()
    if config.source and not looks_local:
        found = _fetch(config.source, config.revision)
        if found is not None and (found / "config.json").is_file():
            return found
    raise FailsightError(_not_found(config, path, looks_local))


def _fetch(source: str, revision: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=[*_TEXTS, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(source, revision=revision, allow_patterns=[*_TEXTS, "*.bin"]))
    except (OSError, ValueError, HFValidationError, HfHubHTTPError):
        return None  # the caller says what was tried
    return folder


def _not_found(config: BackboneConfig, path: Path, looks_local: bool) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    tried = [f"{path.absolute()} ({_why(path)})"]
    if path.is_symlink():
        tried.append(f"its link target {path.resolve()} ({_why(path.resolve())})")
    if config.source and not looks_local:
        tried.append(f"the hub cache {HF_HUB_CACHE} (no revision {config.revision!r} of it) and the hub itself")
    return (
        f"No model found for --backbone.source {config.source!r}. Tried: {'; '.join(tried)}. "
        f"Fetch it with: hf download {config.source or 'ORG/NAME'}, or give a folder that holds config.json."
    )


def _why(path: Path) -> str:
    if path.is_dir():
        return "a folder without config.json"
    return "a file, not a folder" if path.exists() else "does not exist"


# -------------------------------------------------------------------------------------------------------- identity


def base_identity(config: BackboneConfig) -> dict[str, str]:
    """What of the base a policy depends on, part by part, 16 hex digits each; empty when there is no base."""
    if not config.source:
        return {}
    if config.family == "tiny":
        folder = find_tiny(Path(config.source))
        return {"weights": _of_files([tiny_weights(folder)]), "configuration": _of_config(folder, ("provenance",))}
    folder = resolve_source(config)
    return {
        "weights": _of_files(weight_files(folder)),
        "configuration": _of_config(folder, _UNIMPORTANT),
        "tokenizer": _of_files(sorted({path for pattern in _TOKENIZER for path in folder.glob(pattern)})),
        "picture scaling": _digest([json.dumps(pixel_scaling(folder, config.pixels)).encode()]),
    }


def require_base(wanted: Mapping[str, Any], config: BackboneConfig, folder: Path) -> None:
    """Refuse a base other than the one a checkpoint in `folder` was trained on, naming what differs.

    `wanted`: the checkpoint's provenance. Checkpoints of earlier versions recorded less; what they recorded is checked.
    """
    if "base" in wanted:
        known: Mapping[str, str] = wanted["base"]
        found = base_identity(config)
    else:
        known = {"weights": wanted["base_hash"]} if wanted.get("base_hash") else {}
        found = {"weights": _old_hash(config)}
    for part, value in known.items():
        if found.get(part) != value:
            raise FailsightError(
                f"{folder} was trained on base {part} {value} and {config.source} now holds {found.get(part, 'none')}; "
                "point --source at the original model, or train again."
            )


def weight_files(folder: Path) -> list[Path]:
    """The files transformers takes the weights of a folder from. Raises FailsightError when there are none."""
    if (folder / "adapter_config.json").is_file():
        raise FailsightError(f"{folder} holds updates of another model; merge them into it and start from the result.")
    named = read_json_object(folder / "config.json").get("transformers_weights")
    for name in (named,) if named else _CHOICE:
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return [path]
        names = read_json_object(path).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(shard, str) for shard in names.values()):
            raise FailsightError(f"{path} has no weight_map from tensors to files; fetch the model again.")
        shards = [folder / shard for shard in sorted(set(names.values()))]
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing:
            raise FailsightError(f"{path} names {missing[0]}, which is not there; fetch the model again.")
        return shards
    raise FailsightError(f"{folder} holds no weights (looked for {', '.join(_CHOICE)}); fetch the model again.")


def find_tiny(folder: Path) -> Path:
    """A `tiny` checkpoint folder, or a built-in one by name. Raises FailsightError when there is none."""
    if (folder / "config.json").is_file():
        return folder
    shipped = Path(__file__).parent / "checkpoints" / folder.name
    if not (shipped / "config.json").is_file():
        raise FailsightError(
            f"No tiny checkpoint in {folder.absolute()}; tabletop-strong and tabletop-weak are built in."
        )
    return shipped


def tiny_weights(folder: Path) -> Path:
    """The file with a tiny checkpoint's backbone. Raises FailsightError when it is not there."""
    weights = folder / "backbone.safetensors"
    if not weights.is_file():
        raise FailsightError(f"{folder} has no tiny backbone (looked for {weights.name}).")
    return weights


def _of_config(folder: Path, unimportant: Iterable[str]) -> str:
    data = read_json_object(folder / "config.json")
    return _digest([json.dumps(_without(data, set(unimportant)), sort_keys=True).encode()])


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(entry, names) for name, entry in value.items() if name not in names}
    return value


def _of_files(paths: Iterable[Path]) -> str:
    return _digest(content_of(path).encode() for path in paths)


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _old_hash(config: BackboneConfig) -> str:
    """What earlier versions recorded: the bytes of all .safetensors files, or the source's name where there were none."""
    files = sorted(Path(config.source).glob("*.safetensors")) if config.source else []
    return _digest(path.read_bytes() for path in files) if files else config.source
