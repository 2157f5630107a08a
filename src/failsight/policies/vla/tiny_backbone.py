"""The `tiny` backbone: 0.6 to 2 M parameters, from scratch or from a `tiny` checkpoint, for CPUs and tests.

Convolution towers under language modulation (see `tower`) give one token per camera; a transformer over
[language][frame: cameras, action tokens][next frame ...] is causal between frames. `joint_backbone` is its sibling for a
single frame.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from failsight.core.errors import FailsightError
from failsight.core.textfiles import read_json_object
from failsight.policies.vla.backbone import BINS, Features
from failsight.policies.vla.base import find_tiny, tiny_weights
from failsight.policies.vla.design import BackboneConfig
from failsight.policies.vla.tiny_reader import RESET, TinyReader
from failsight.policies.vla.words import WORD_RULE

MAX_BINS = 128
_OWN = ("kinds", "words", "positions", "ages", "bins", "bin_places")
"""Tables that belong to a data set, a window or a head; a checkpoint of others may have none, or of another size."""


class Block(nn.Module):
    """Pre-norm attention and MLP; plain linear layers, so low-rank updates reach them in training and evaluation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        """(B, T, W), (T, T) bool -> (B, T, W)."""
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


class TinyBackbone(TinyReader):
    """See the module docstring."""

    reads_state = False
    head_width = 0

    def __init__(
        self,
        config: BackboneConfig,
        vocabulary: Sequence[str],
        cameras: int,
        window: int,
        start: bool,
        word_rule: int = WORD_RULE,
    ) -> None:
        """`start`: begin with the weights of `config.source`, when there is one; `word_rule`: see `words`."""
        super().__init__(config, vocabulary, cameras, word_rule)
        width = config.width
        self.kinds = nn.Parameter(0.02 * torch.randn(1 + cameras + config.action_tokens, width))
        self.ages = nn.Parameter(0.02 * torch.randn(window, width))
        self.bins = nn.Embedding(BINS, width)
        self.bin_places = nn.Parameter(0.02 * torch.randn(MAX_BINS, width))
        self.blocks_ = nn.ModuleList(Block(width, 4) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.token_width = width
        self.width = width * config.action_tokens * len(config.layers)
        if config.source and start:
            start_from(self, Path(config.source))
        _tune(self, config)

    def forward(
        self, images: Tensor, texts: Sequence[str], resets: Sequence[bool], bins: Tensor | None = None
    ) -> Features:
        """See `Backbone`: images (B, S, C, 3, H, W) in [0, 1], bins (B, L) -> acts (B, S, D), tokens (B, L + 1, E)."""
        batch, frames = images.shape[:2]
        language = self.read(texts, resets, images.device)
        spread = language[:, None].expand(-1, frames, -1).flatten(0, 1)
        views = images.flatten(0, 1)
        seen = [tower(views[:, i], spread) for i, tower in enumerate(self.towers)]
        cameras = torch.stack(seen, 1).view(batch, frames, len(seen), -1).to(self.kinds.dtype)
        acts = cameras.new_zeros(batch, frames, self.config.action_tokens, cameras.shape[-1])
        ages = self.ages[-frames:, None] if frames <= len(self.ages) else self.ages[:1, None]
        steps = torch.cat([cameras, acts], 2) + self.kinds[1:] + ages
        parts = [(self.language_token(language) + self.kinds[0])[:, None], steps.flatten(1, 2)]
        if bins is not None:
            parts.append(self.bins(bins) + self.bin_places[: bins.shape[1]])
        states = self._run(torch.cat(parts, 1), frames, 0 if bins is None else bins.shape[1])
        return self._read(states, frames, bins)

    def _run(self, x: Tensor, frames: int, bins: int) -> list[Tensor]:
        allowed = _allowed(frames, self._cameras + self.config.action_tokens, bins, x.device)
        states = [x]
        for block in self.blocks_:
            states.append(block(states[-1], allowed))
        return [*states[:-1], self.norm(states[-1])]

    def _read(self, states: list[Tensor], frames: int, bins: Tensor | None) -> Features:
        per_frame = self._cameras + self.config.action_tokens
        batch = len(states[-1])
        joined = torch.cat([states[i] for i in self.config.layers], -1)
        steps = joined[:, 1 : 1 + frames * per_frame].view(batch, frames, per_frame, -1)
        features = steps[:, :, self._cameras :].flatten(2)
        if bins is None:
            return Features(features, None)
        end = frames * per_frame
        return Features(features, states[-1][:, end : end + 1 + bins.shape[1]])

    def bin_rows(self) -> Tensor:
        """(256, W) rows of the action bins."""
        return self.bins.weight.detach().clone()

    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, for hooks."""
        return self.blocks_


def _allowed(frames: int, per_frame: int, bins: int, device: torch.device) -> Tensor:
    """(T, T) bool: everything sees the language and its own and earlier frames; action bins see what came before."""
    frame = torch.cat([torch.zeros(1), 1 + torch.arange(frames).repeat_interleave(per_frame).float()])
    order = torch.cat([frame, frames + 1 + torch.arange(bins).float()]).to(device)
    return order[:, None] >= order[None, :]


def _tune(network: TinyBackbone, config: BackboneConfig) -> None:
    if config.tuning == "full":
        return
    if not config.source:
        raise FailsightError(
            f"A tiny backbone with --backbone.tuning {config.tuning} needs --backbone.source: a tiny checkpoint to "
            "start from (for example tabletop-strong); from scratch there is nothing to freeze."
        )
    network.requires_grad_(False)
    if config.tuning == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        names = [name for name, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
        options = LoraConfig(
            r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout, target_modules=names
        )
        inject_adapter_in_model(options, network)
    for part in (network.kinds, network.ages, network.positions):
        part.requires_grad_(True)
    for module in (network.words, network.bins):
        module.weight.requires_grad_(True)
    network.bin_places.requires_grad_(True)


def start_from(network: TinyBackbone, folder: Path) -> None:
    """Copy what a `tiny` checkpoint shares with this backbone: towers, language, transformer and known words.

    A camera the checkpoint does not have starts from its first one. Raises FailsightError when there is no checkpoint,
    or one of another width or depth.
    """
    folder = find_tiny(folder)
    data, weights = read_json_object(folder / "config.json"), tiny_weights(folder)
    old = _renamed(load_file(weights))
    state = network.state_dict()
    for name, value in state.items():
        source = re.sub(r"^towers\.\d+", "towers.0", name) if name not in old else name
        same = source in old and old[source].shape == value.shape
        if same and not name.startswith(("kinds", "words")):
            state[name] = old[source]
        elif not name.startswith(_OWN):
            there = tuple(old[source].shape) if source in old else "not there"
            raise FailsightError(
                f"{weights} cannot start this backbone: {name} is {tuple(value.shape)} here and {there}; "
                "set --backbone.width and --backbone.depth to the checkpoint's."
            )
    known = {word: i for i, word in enumerate(data["vocabulary"])}
    for word, row in network._index.items():
        if word in known:
            state["words.weight"][row] = old["words.weight"][known[word] + RESET + 1]
    network.load_state_dict(state)


def _renamed(old: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the joint backbone -> names here; low-rank updates of an adapted backbone are not carried over."""
    table = {
        r"^trunk\.layers\.(\d+)\.self_attn\.in_proj_": r"blocks_.\1.qkv.",
        r"^trunk\.layers\.(\d+)\.self_attn\.out_proj\.": r"blocks_.\1.out.",
        r"^trunk\.layers\.(\d+)\.linear1\.": r"blocks_.\1.up.",
        r"^trunk\.layers\.(\d+)\.linear2\.": r"blocks_.\1.down.",
        r"^trunk\.layers\.(\d+)\.norm(\d)\.": r"blocks_.\1.norm\2.",
        r"\.base_layer\.": ".",
    }
    result = {}
    for name, value in old.items():
        for pattern, new in table.items():
            name = re.sub(pattern, new, name)
        result[name] = value
    return result
