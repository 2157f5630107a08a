"""Vision-language models of every family with random weights and under a million parameters, saved to a folder.

They go through the same loading code as real checkpoints: class from the configuration, tokenizer, image processor.
Not here: anything learnt. Sources of the special tokens: the families' own tokenizers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

VOCABULARY, HIDDEN, LAYERS, SIDE, PATCH = 640, 64, 2, 28, 14

SPECIAL = (
    "<pad>", "<s>", "</s>", "<unk>", "<image>", "</image>", "<grounding>", "<bos>", "<fake_token_around_image>",
    "<global-img>", "<end_of_utterance>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>",
)  # fmt: skip
_IMAGE, _IMAGE_PAD = SPECIAL.index("<image>"), SPECIAL.index("<|image_pad|>")


def make_tokenizer() -> Any:
    """Byte-level BPE trained on a few sentences, with every family's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 40,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = "navigate around the obstacle to the bottle passing it on left right what action should robot take"
    objects = "put red green blue cube box bin stack pick place drawer open close push gently slowly carefully quickly"
    core.train_from_iterator([words, objects, *(f"{a} {b}" for a in words.split() for b in objects.split())], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def _text(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **more,
    }


def _vision(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
        **more,
    }


def _llava() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    return LlavaConfig(
        vision_config=CLIPVisionConfig(**_vision()), text_config=LlamaConfig(**_text()), image_token_index=_IMAGE
    )


def _paligemma() -> Any:
    from transformers import GemmaConfig, PaliGemmaConfig, SiglipVisionConfig

    vision = SiglipVisionConfig(**_vision(projection_dim=HIDDEN), vision_use_head=False)
    return PaliGemmaConfig(
        vision_config=vision,
        text_config=GemmaConfig(**_text()),
        image_token_index=_IMAGE,
        projection_dim=HIDDEN,
        hidden_size=HIDDEN,
    )


def _idefics() -> Any:
    from transformers import IdeficsConfig

    text = {k: v for k, v in _text().items() if k not in ("num_key_value_heads", "head_dim")}
    vision = {"embed_dim": 32, "image_size": SIDE, "patch_size": PATCH, "intermediate_size": 48}
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    return IdeficsConfig(
        **{**text, "vocab_size": VOCABULARY - 2},
        additional_vocab_size=2,
        cross_layer_interval=1,
        alpha_initializer="ones",  # closed gates would show no image at all
        vision_config=vision,
        perceiver_config={
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
        },
        use_resampler=True,
    )


def _idefics3(kind: str) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        text = transformers.LlamaConfig(**_text())
        config = getattr(transformers, f"{kind}Config")
        return config(
            vision_config=_vision(),
            text_config=text,
            image_token_id=_IMAGE,
            scale_factor=2,
            pad_token_id=0,
        )

    return make


def _qwen(kind: str) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        config = getattr(transformers, f"{kind}Config")
        rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
        text = _text(rope_parameters=rope)
        vision: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "depth": 2, "num_heads": 2}
        vision |= {"patch_size": PATCH, "spatial_merge_size": 1, "temporal_patch_size": 2, "out_hidden_size": HIDDEN}
        if kind == "Qwen3VL":
            vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
        else:
            vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
        return config(
            text_config=text,
            vision_config=vision,
            image_token_id=_IMAGE_PAD,
            vision_start_token_id=SPECIAL.index("<|vision_start|>"),
            vision_end_token_id=SPECIAL.index("<|vision_end|>"),
        )

    return make


def _kosmos() -> Any:
    from transformers import Kosmos2Config

    text: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "embed_dim": HIDDEN,
        "layers": LAYERS,
        "ffn_dim": 96,
        "attention_heads": 4,
    }
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "dropout": 0.0, "attention_dropout": 0.0}
    return Kosmos2Config(text_config=text, vision_config=_vision(), latent_query_num=4)


BUILDERS: dict[str, Callable[[], Any]] = {
    "kosmos-2": _kosmos,
    "llava": _llava,
    "idefics": _idefics,
    "paligemma": _paligemma,
    "idefics3": _idefics3("Idefics3"),
    "smolvlm": _idefics3("SmolVLM"),
    "qwen2.5-vl": _qwen("Qwen2_5_VL"),
    "qwen3-vl": _qwen("Qwen3VL"),
}
"""Family -> tiny configuration."""


def save_tiny_vlm(family: str, folder: Path, seed: int = 0, config: Any = None) -> Path:
    """Model, tokenizer and image processor settings of a family in `folder`; `config` for a family of one's own."""
    import torch
    from transformers import AutoModelForImageTextToText, utils

    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config if config is not None else BUILDERS[family]())
    utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    statistics = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    return folder
