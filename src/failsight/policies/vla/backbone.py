"""Vision-language backbones from a folder or the hub: images and an instruction in, features at action tokens out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failsight.core.errors import FailsightError
from failsight.core.textfiles import read_json_object
from failsight.policies.vla.base import resolve_source
from failsight.policies.vla.design import BackboneConfig
from failsight.policies.vla.families import Family, Sequences, family_of, find_family
from failsight.policies.vla.pixels import SYMMETRIC, pixel_scaling, save_scaling
from failsight.policies.vla.prompts import Composer, pad
from failsight.policies.vla.whole import lacking, load_adapter, load_all, own_tensors

BINS = 256
SPECIAL_OFFSET = 10
"""Rows at the very end of a vocabulary that action bins leave alone (special tokens live there)."""
RESET_TOKENS = 1


class Features(NamedTuple):
    """What a backbone returns."""

    acts: Tensor
    """(B, S, D) features of each frame, the action tokens side by side."""
    tokens: Tensor | None
    """(B, L + 1, E) states from which each of L appended action tokens and the one after them is predicted, or None."""


class Backbone(Protocol):
    """Images and instructions -> features; an `nn.Module`."""

    width: int
    """D."""
    token_width: int
    """E."""
    reads_state: bool
    """Whether states are tokens of its sequence. Its features are then complete: normalised, the state in them."""
    head_width: int
    """How many of the features, from the first on, action heads read; 0: all."""

    def __call__(
        self, images: Tensor, texts: Sequence[str], resets: Sequence[bool], bins: Tensor | None = None
    ) -> Features:
        """(B, S, C, 3, H, W) float in [0, 1] of S frames that share one sequence, B instructions, (B, L) action bins."""


class VLMBackbone(nn.Module):
    """A transformers model with learnable action tokens, frozen, low-rank or in full."""

    reads_state = False
    head_width = 0
    _mean: Tensor
    _std: Tensor

    def __init__(self, config: BackboneConfig, cameras: int, needs_bins: bool, folder: Path | None = None) -> None:
        """`folder` holds `backbone/` of a checkpoint trained in full."""
        super().__init__()
        self.config = config
        source = resolve_source(config) if folder is None else folder
        model, tokenizer = _load(source, config, from_weights=folder is None)
        self.family = _require_family(config, model.config.model_type)
        self.family.prepare(model)
        side = config.image_size or int(_vision(model.config).image_size)
        _vision(model.config).image_size = side
        if self.family.name == "idefics":
            model.config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
        rows = model.get_input_embeddings().weight.shape[0]
        fresh = _free_rows(model, len(tokenizer), config.action_tokens + RESET_TOKENS)
        self._bin_ids = list(
            range(min(rows, len(tokenizer)) - SPECIAL_OFFSET - BINS, min(rows, len(tokenizer)) - SPECIAL_OFFSET)
        )
        if needs_bins and self._bin_ids[0] < 0:
            raise FailsightError(f"A vocabulary of {len(tokenizer)} has no room for {BINS} action tokens.")
        trained = fresh + (self._bin_ids if needs_bins else [])
        self.model, self._core = _tune(model, self.family, config, trained)
        templates = (config.prompt or self.family.prompt, self.family.interleaved)
        new = {"act": fresh[: config.action_tokens], "reset": fresh[config.action_tokens :]}
        self.tokenizer = tokenizer
        self._compose = Composer(tokenizer, self.family.image(model.config), templates, new, cameras)
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._side = side
        own = self.family.name == "openvla"  # its towers normalise by themselves and want [-1, 1]
        self._scaling = SYMMETRIC if own else pixel_scaling(source, config.pixels)
        self.register_buffer("_mean", torch.tensor(self._scaling.mean)[:, None, None], persistent=False)
        self.register_buffer("_std", torch.tensor(self._scaling.std)[:, None, None], persistent=False)
        self.token_width = int(model.config.get_text_config().hidden_size)
        self.width = self.token_width * len(config.layers) * config.action_tokens
        if config.checkpointing:
            self._core.gradient_checkpointing_enable({"use_reentrant": False})

    def forward(
        self, images: Tensor, texts: Sequence[str], resets: Sequence[bool], bins: Tensor | None = None
    ) -> Features:
        """See `Backbone`: images (B, S, C, 3, H, W) in [0, 1], bins (B, L) -> acts (B, S, D), tokens (B, L + 1, E)."""
        frames = images.shape[1]
        layouts = [self._compose(text, reset, frames) for text, reset in zip(texts, resets, strict=True)]
        appended = None if bins is None else torch.tensor(self._bin_ids)[bins.cpu()]
        padded = pad(layouts, self._pad, appended, causal=frames > 1)
        device = images.device
        sequences = Sequences(
            ids=padded.ids.to(device),
            mask=padded.mask.long().to(device),
            slots=padded.slots.to(device),
            seen=padded.seen.to(device),
            prefix=padded.prefix.to(device),
            pixels=self._pixels(images),
        )
        inputs = {"input_ids": sequences.ids, "attention_mask": sequences.mask, "use_cache": False}
        inputs |= self.family.keys(self._core.config, sequences)
        deep = self.config.layers != (-1,)
        output = self.family.run(self._core, {**inputs, "output_hidden_states": deep})
        states = [output.hidden_states[i] for i in self.config.layers] if deep else [output.last_hidden_state]
        return self._read(
            states, output.last_hidden_state, padded.acts.to(device), padded.ends.to(device), bins, frames
        )

    def _read(
        self, states: list[Tensor], last: Tensor, acts: Tensor, ends: Tensor, bins: Tensor | None, frames: int
    ) -> Features:
        picked = [torch.take_along_dim(state, acts[..., None], 1) for state in states]
        features = torch.cat(picked, -1).view(len(acts), frames, self.width)
        if bins is None:
            return Features(features, None)
        at = ends[:, None] + torch.arange(bins.shape[1] + 1, device=ends.device)
        return Features(features, torch.take_along_dim(last, at[..., None], 1))

    def _pixels(self, images: Tensor) -> Tensor:
        batch, frames, cameras = images.shape[:3]
        flat = images.flatten(0, 2)
        if flat.shape[-2:] != (self._side, self._side):
            flat = F.interpolate(flat, (self._side, self._side), mode="bicubic", antialias=True).clamp(0, 1)
        flat = (flat - self._mean) / self._std
        dtype = next(self._core.parameters()).dtype
        return flat.view(batch, frames * cameras, *flat.shape[1:]).to(dtype)

    def bin_rows(self) -> Tensor:
        """(256, E) vocabulary rows of the action bins, the start of a classifier over them."""
        head = self._core.get_output_embeddings()
        table = head.weight if head is not None else self._core.get_input_embeddings().weight
        ids = torch.tensor(self._bin_ids, device=table.device)
        rows: Tensor = table.detach()[ids].float().clone()
        return rows

    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, for hooks."""
        found = self._core.get_submodule(self.family.decoder)
        assert isinstance(found, nn.ModuleList)
        return found

    def save(self, folder: Path) -> None:
        """`adapter/` (frozen and low-rank) or everything under `backbone/`."""
        from safetensors.torch import save_file

        if self.config.tuning == "full":
            target = folder / "backbone"
            target.mkdir(parents=True, exist_ok=True)
            self._core.config.save_pretrained(target)
            self.tokenizer.save_pretrained(target)
            save_scaling(self._scaling, target)
            save_file(own_tensors(self._core), target / "weights.safetensors")
            return
        self.model.save_pretrained(folder / "adapter")
        path = folder / "adapter" / "adapter_config.json"
        data = read_json_object(path)
        data["base_model_name_or_path"] = None if Path(self.config.source).exists() else self.config.source
        path.write_text(json.dumps(data, indent=1))
        self.tokenizer.save_pretrained(folder / "processor")

    def restore(self, folder: Path) -> None:
        """Weights written by `save`. Raises FailsightError when there are fewer or others than this model has."""
        if self.config.tuning == "full":
            load_all(self._core, folder / "backbone" / "weights.safetensors")
        else:
            load_adapter(self.model, folder / "adapter" / "adapter_model.safetensors")


def _require_family(config: BackboneConfig, model_type: str) -> Family:
    family = find_family(config.family)
    if model_type not in family.model_types:
        found = family_of(model_type).name
        raise FailsightError(
            f"{config.source} holds a {found} model, not {config.family}; use --backbone.family {found}."
        )
    return family


def _load(source: Path, config: BackboneConfig, from_weights: bool) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, utils

    from failsight.policies.vla import prismatic

    prismatic.register()
    utils.logging.disable_progress_bar()
    place, missing = str(source), []
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
        if from_weights:
            model, report = AutoModelForImageTextToText.from_pretrained(
                place, dtype=torch.float32, output_loading_info=True
            )
            missing = sorted(report["missing_keys"])
        else:
            model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(place))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FailsightError(f"{source} does not load as a vision-language model: {first}") from error
    if missing:
        raise FailsightError(f"{source} {lacking(missing)}; they would start at random. Fetch the whole model.")
    return model.float(), tokenizer


def _vision(config: Any) -> Any:
    """The vision configuration; Qwen's has no image size, so ours is written there."""
    vision = config.vision_config
    if not hasattr(vision, "image_size"):
        vision.image_size = 8 * vision.patch_size * vision.spatial_merge_size
    return vision


def _free_rows(model: Any, used: int, count: int) -> list[int]:
    """Rows of the word table no token uses; the table grows when there are too few (its language head does not)."""
    table = model.get_input_embeddings()
    rows = table.weight.shape[0]
    if rows - used < count:
        grown = nn.Embedding(used + count, table.weight.shape[1], padding_idx=table.padding_idx)
        with torch.no_grad():
            nn.init.normal_(grown.weight, std=float(table.weight.float().std()))
            grown.weight[:rows] = table.weight[: used + count]
        _replace_table(model, table, grown)
    return list(range(used, used + count))


def _replace_table(model: Any, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another, keeping its class's own behaviour (Gemma scales inside the table)."""
    if type(old) is nn.Embedding:
        model.set_input_embeddings(new)
        return
    assert isinstance(new, nn.Embedding)
    assert isinstance(old, nn.Embedding)
    old.weight = nn.Parameter(new.weight.detach())
    old.num_embeddings = new.num_embeddings


def _tune(model: Any, family: Family, config: BackboneConfig, tokens: list[int]) -> tuple[Any, Any]:
    """The model to train, and the plain one inside it."""
    from peft import LoraConfig, TrainableTokensConfig, get_peft_model

    if config.tuning == "full":
        head = model.get_output_embeddings()
        if head is not None and head.weight is not model.get_input_embeddings().weight:
            head.requires_grad_(False)
        return model, model
    name = next(n for n, m in model.named_modules() if m is model.get_input_embeddings())
    options: Any
    if config.tuning == "lora":
        options = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=family.lora,
            trainable_token_indices={name: tokens},
        )
    else:
        options = TrainableTokensConfig(target_modules=[name], token_indices=tokens)
    peft_model = get_peft_model(model, options)
    return peft_model, peft_model.get_base_model()
