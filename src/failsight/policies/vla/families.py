"""The families of vision-language models: per family only what differs from `AutoModelForImageTextToText`.

What differs is in the batch, not in the model: what stands for an image in the text, which extra keys the forward
pass needs, where the decoder lies, which modules take low-rank updates. Every special case was measured on
transformers 5.23 (missing keys raise in some families and silently change the numbers in others).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from failsight.core.errors import UnknownNameError

Config = Any
"""A transformers `PretrainedConfig`; its fields differ per family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageText:
    """What stands for one image in the token sequence."""

    before: Sequence[str] = ()
    slot: int
    """Token id that is replaced by image features (or marks a cross-attended image)."""
    count: int
    after: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """A padded batch of token sequences with N images each."""

    ids: Tensor
    """(B, T) int64."""
    mask: Tensor
    """(B, T) 1 for real tokens."""
    slots: Tensor
    """(B, T) bool: image slots."""
    seen: Tensor
    """(B, T) how many images begin at or before each token."""
    prefix: Tensor
    """(B, T) bool: tokens before the first action token (a prefix language model may look both ways there)."""
    pixels: Tensor
    """(B, N, 3, H, W) float, normalised."""


Keys = Callable[[Config, Sequences], dict[str, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One row of the adapter table."""

    name: str
    model_types: tuple[str, ...]
    """`config.model_type` values it serves."""
    image: Callable[[Config], ImageText]
    keys: Keys
    """Everything the forward pass needs beside ids and mask."""
    decoder: str
    """Path to the decoder blocks."""
    run: Callable[[Any, dict[str, Any]], Any] = lambda model, inputs: model.model(**inputs)
    """Forward pass without the language head: the output carries `last_hidden_state` and, asked for, `hidden_states`."""
    prepare: Callable[[Any], None] = lambda model: None
    """Change of the loaded model before anything is added to it."""
    projections: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    prompt: str = "{images}{instruction}{act}"
    interleaved: tuple[str, str] = ("{instruction}", "{images}{act}")
    """Header, then what repeats per frame."""

    @property
    def lora(self) -> str:
        """Anchored pattern of the decoder's projections; a bare suffix would also hit the vision tower."""
        return rf"^{self.decoder.replace('.', '[.]')}[.]\d+[.].*({'|'.join(self.projections)})$"


def _vision_patches(config: Config) -> int:
    return int(config.vision_config.image_size // config.vision_config.patch_size) ** 2


def _flat(sequences: Sequences) -> Tensor:
    return sequences.pixels.flatten(0, 1)


def _llava_keys(config: Config, s: Sequences) -> dict[str, Tensor]:
    return {"pixel_values": _flat(s)}


def _paligemma_keys(config: Config, s: Sequences) -> dict[str, Tensor]:
    """Types: 0 looks both ways (the prompt), 1 is causal (the action token, and everything once frames interleave)."""
    return {"pixel_values": _flat(s), "token_type_ids": (~s.prefix).long()}


def _kosmos_keys(config: Config, s: Sequences) -> dict[str, Tensor]:
    return {"pixel_values": _flat(s), "image_embeds_position_mask": s.slots.long()}


def _kosmos_run(model: Any, inputs: dict[str, Any]) -> Any:
    """Kosmos-2 has no inner model to call: vision, projection and decoder in its own order (normalised features)."""
    vision = model.vision_model(pixel_values=inputs.pop("pixel_values"))
    features = model.vision_model.model.post_layernorm(vision[0])
    features, _ = model.image_to_text_projection(nn.functional.normalize(features, dim=-1))
    return model.text_model.model(image_embeds=features, **inputs)


def _merge_word_tables(model: Any) -> None:
    """Idefics 1 keeps the words added later in a second table behind its own lookup; one plain table serves all."""
    table = model.get_input_embeddings()
    if getattr(table, "num_additional_embeddings", 0):
        rows = torch.cat([table.weight, table.additional_embedding.weight]).detach()
        merged = nn.Embedding(rows.shape[0], rows.shape[1], padding_idx=table.padding_idx)
        merged.weight = nn.Parameter(rows)
        model.set_input_embeddings(merged)


def _idefics1_keys(config: Config, s: Sequences) -> dict[str, Tensor]:
    """Every token attends to the images at or before it."""
    order = torch.arange(s.pixels.shape[1], device=s.ids.device)
    return {"pixel_values": s.pixels, "image_attention_mask": (order < s.seen[..., None]).long()}


def _idefics3_keys(config: Config, s: Sequences) -> dict[str, Tensor]:
    shape = (*s.pixels.shape[:2], *s.pixels.shape[3:])
    mask = torch.ones(shape, dtype=torch.bool, device=s.ids.device)
    return {"pixel_values": s.pixels, "pixel_attention_mask": mask}


def _qwen_keys(config: Config, s: Sequences) -> dict[str, Tensor]:
    """Flat patch rows in merge order, the grid of every image, and token types (2.5 is silently wrong without them)."""
    vision = config.vision_config
    patch, merge = vision.patch_size, vision.spatial_merge_size
    rows, grid = patch_rows(_flat(s), patch, merge, vision.temporal_patch_size)
    images = len(s.ids) * s.pixels.shape[1]
    thw = torch.tensor([[1, *grid]], device=s.ids.device).expand(images, 3)
    return {"pixel_values": rows, "image_grid_thw": thw, "mm_token_type_ids": s.slots.int()}


def patch_rows(pixels: Tensor, patch: int, merge: int, frames: int) -> tuple[Tensor, tuple[int, int]]:
    """(N, 3, H, W) -> (N * patches, 3 * frames * patch * patch) in the order of Qwen's processor, and (rows, columns)."""
    images, channels, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    x = pixels.reshape(images, channels, rows // merge, merge, patch, columns // merge, merge, patch)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
    x = x.expand(*x.shape[:6], frames, *x.shape[7:])
    return x.reshape(images * rows * columns, -1), (rows, columns)


def _scaled_count(config: Config) -> int:
    return _vision_patches(config) // int(config.scale_factor) ** 2


def _merged_count(config: Config) -> int:
    """Set by the backbone through `config.vision_config.image_size`, which Qwen itself does not declare."""
    return _vision_patches(config) // int(config.vision_config.spatial_merge_size) ** 2


_FAKE = "<fake_token_around_image>"

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="kosmos-2",
            model_types=("kosmos-2",),
            image=lambda c: ImageText(before=("<image>",), slot=4, count=c.latent_query_num, after=("</image>",)),
            keys=_kosmos_keys,
            decoder="text_model.model.layers",
            run=_kosmos_run,
            projections=("q_proj", "k_proj", "v_proj", "out_proj"),
            prompt="<s>{images}<grounding> {instruction}{act}",
            interleaved=("<s><grounding> {instruction}", "{images}{act}"),
        ),
        Family(
            name="llava",
            model_types=("llava",),
            image=lambda c: ImageText(slot=c.image_token_index, count=_vision_patches(c)),
            keys=_llava_keys,
            decoder="model.language_model.layers",
            prompt="<s>USER: {images}\nWhat action should the robot take to {instruction}? ASSISTANT:{act}",
            interleaved=("<s>USER: What action should the robot take to {instruction}? ASSISTANT:", "{images}{act}"),
        ),
        Family(
            name="idefics",
            model_types=("idefics",),
            image=lambda c: ImageText(before=(_FAKE,), slot=_image_id(c), count=1, after=(_FAKE,)),
            keys=_idefics1_keys,
            decoder="model.layers",
            prepare=_merge_word_tables,
            prompt="<s>User: {images} What action should the robot take to {instruction}?\nAssistant:{act}",
            interleaved=("<s>User: What action should the robot take to {instruction}?\nAssistant:", "{images}{act}"),
        ),
        Family(
            name="paligemma",
            model_types=("paligemma",),
            image=lambda c: ImageText(slot=c.image_token_index, count=_vision_patches(c)),
            keys=_paligemma_keys,
            decoder="model.language_model.layers",
            prompt="{images}<bos>{instruction}\n{act}",
            interleaved=("<bos>{instruction}\n", "{images}{act}"),
        ),
        *(
            Family(
                name=name,
                model_types=(name,),
                image=lambda c: ImageText(
                    before=(_FAKE, "<global-img>"), slot=c.image_token_id, count=_scaled_count(c), after=(_FAKE,)
                ),
                keys=_idefics3_keys,
                decoder="model.text_model.layers",
                prompt="<|im_start|>User:{images}What action should the robot take to {instruction}?"
                "<end_of_utterance>\nAssistant:{act}",
                interleaved=(
                    "<|im_start|>User:What action should the robot take to {instruction}?<end_of_utterance>\nAssistant:",
                    "{images}{act}",
                ),
            )
            for name in ("idefics3", "smolvlm")
        ),
        *(
            Family(
                name=name,
                model_types=(kind,),
                image=lambda c: ImageText(
                    before=("<|vision_start|>",),
                    slot=c.image_token_id,
                    count=_merged_count(c),
                    after=("<|vision_end|>",),
                ),
                keys=_qwen_keys,
                decoder="model.language_model.layers",
                prompt="<|im_start|>user\n{images}What action should the robot take to {instruction}?<|im_end|>\n"
                "<|im_start|>assistant\n{act}",
                interleaved=(
                    "<|im_start|>user\nWhat action should the robot take to {instruction}?<|im_end|>\n"
                    "<|im_start|>assistant\n",
                    "{images}{act}",
                ),
            )
            for name, kind in (("qwen2.5-vl", "qwen2_5_vl"), ("qwen3-vl", "qwen3_vl"))
        ),
        Family(
            name="openvla",
            model_types=("failsight_prismatic",),
            image=lambda c: ImageText(slot=c.image_token_id, count=_vision_patches(c)),
            keys=_llava_keys,
            decoder="language_model.model.layers",
            run=lambda model, inputs: model(**inputs),
            prompt="<s>{images}In: What action should the robot take to {instruction}?\nOut:{act}",
            interleaved=("<s>In: What action should the robot take to {instruction}?\nOut:", "{images}{act}"),
        ),
    )
}
"""Name -> family. `tiny` is not here: it is built from scratch in `tiny_backbone`."""

NAMES = ("tiny", *FAMILIES)


def _image_id(config: Config) -> int:
    """Idefics 1 declares no id for its image marker; the backbone writes the tokenizer's into the config."""
    return int(config.image_token_id)


def find_family(name: str) -> Family:
    """Raises UnknownNameError with the nearest names."""
    if name not in FAMILIES:
        raise UnknownNameError("backbone family", name, NAMES)
    return FAMILIES[name]


def family_of(model_type: str) -> Family:
    """The family that serves a `config.model_type`. Raises UnknownNameError."""
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    raise UnknownNameError("model type", model_type, (t for f in FAMILIES.values() for t in f.model_types))
