"""OpenVLA's architecture natively: two vision towers side by side, a projector, a Llama.

The upstream code insists on old versions of transformers and timm, so it cannot run beside the other families. This
class registers with the Auto classes under the model type `failsight_prismatic`. Not known here: the map from the
published checkpoint's timm names to these (no weights were at hand to check one), so it loads folders written by
`save_pretrained`; a published OpenVLA is reached through its own server.
Source: Kim et al. 2024, arXiv 2406.09246; Karamcheti et al. 2024, arXiv 2402.07865.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPast

MODEL_TYPE = "failsight_prismatic"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PrismaticConfig(PretrainedConfig):  # type: ignore[misc]
    """Vision: a DINOv2 and a SigLIP configuration of equal image and patch size; text: a causal language model."""

    model_type = MODEL_TYPE
    sub_configs = {"vision_config": AutoConfig, "second_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012

    def __init__(
        self,
        vision_config: Any = None,
        second_config: Any = None,
        text_config: Any = None,
        image_token_id: int = 0,
        **rest: Any,
    ) -> None:
        self.vision_config = _as_config(vision_config, "dinov2")
        self.second_config = _as_config(second_config, "siglip_vision_model")
        self.text_config = _as_config(text_config, "llama")
        self.image_token_id = image_token_id
        super().__init__(**rest)


def _as_config(value: Any, default: str) -> PretrainedConfig:
    if isinstance(value, PretrainedConfig):
        return value
    data = dict(value or {})
    return AutoConfig.for_model(data.pop("model_type", default), **data)


class PrismaticForActions(PreTrainedModel):  # type: ignore[misc]
    """Patches of both towers (second-to-last layer), joined by channel, projected into the language model's space."""

    config_class = PrismaticConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: PrismaticConfig) -> None:
        super().__init__(config)
        self.first = AutoModel.from_config(config.vision_config)
        self.second = AutoModel.from_config(config.second_config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        joint = config.vision_config.hidden_size + config.second_config.hidden_size
        width = config.text_config.hidden_size
        self.projector = nn.Sequential(
            nn.Linear(joint, 4 * joint), nn.GELU(), nn.Linear(4 * joint, width), nn.GELU(), nn.Linear(width, width)
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's word rows."""
        return self.language_model.get_input_embeddings()  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word rows."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language model's output rows."""
        return self.language_model.get_output_embeddings()  # type: ignore[no-any-return]

    def patches(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) normalised to [-1, 1], as SigLIP wants it -> (N, P, D); DINOv2 gets ImageNet's statistics."""
        mean, std = (pixels.new_tensor(v)[:, None, None] for v in (_IMAGENET_MEAN, _IMAGENET_STD))
        first = self.first((pixels * 0.5 + 0.5 - mean) / std, output_hidden_states=True).hidden_states[-2][:, 1:]
        second = self.second(pixels, output_hidden_states=True).hidden_states[-2]
        out: Tensor = self.projector(torch.cat([first, second], -1))
        return out

    def forward(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None, **rest: Any
    ) -> BaseModelOutputWithPast:
        """Hidden states (N, T, D) of the language model, image slots of `input_ids` (N, T) replaced by patches.

        `pixel_values` (M, 3, H, W) are all images of all rows in order, normalised to [-1, 1]; `attention_mask` (N, T).
        """
        embedded = self.get_input_embeddings()(input_ids)
        patches = self.patches(pixel_values).to(embedded.dtype)
        slots = (input_ids == self.config.image_token_id)[..., None].expand_as(embedded)
        embedded = embedded.masked_scatter(slots, patches)
        return self.language_model.model(inputs_embeds=embedded, attention_mask=attention_mask, **rest)


def register() -> None:
    """Make the Auto classes know this model; calling it again changes nothing."""
    AutoConfig.register(MODEL_TYPE, PrismaticConfig, exist_ok=True)
    AutoModelForImageTextToText.register(PrismaticConfig, PrismaticForActions, exist_ok=True)
