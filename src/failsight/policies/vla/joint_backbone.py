"""The `tiny` backbone with joint attention: one frame, in which everything sees everything.

The tokens are one per camera, the instruction, the state and a query, in a small transformer. The features are the
query, from which action heads read, and beside it the camera tokens, in which a probe finds where things are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from failsight.policies.vla.backbone import Features
from failsight.policies.vla.design import BackboneConfig
from failsight.policies.vla.tiny_reader import TinyReader
from failsight.policies.vla.words import WORD_RULE

_ATTENTION_HEADS = 4


class JointBackbone(TinyReader):
    """See the module docstring."""

    reads_state = True

    def __init__(
        self,
        config: BackboneConfig,
        vocabulary: Sequence[str],
        cameras: int,
        states: int,
        word_rule: int = WORD_RULE,
    ) -> None:
        """`states`: entries of the state; 0 leaves its token out."""
        super().__init__(config, vocabulary, cameras, word_rule)
        width = config.width
        self.state_token = nn.Sequential(nn.Linear(states, 128), nn.GELU(), nn.Linear(128, width)) if states else None
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.kinds = nn.Parameter(0.02 * torch.randn(cameras + 2 + (states > 0), width))
        layer = nn.TransformerEncoderLayer(
            width, _ATTENTION_HEADS, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.trunk = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head_width, self.token_width = width, width
        self.width = width * (1 + cameras)

    def forward(
        self,
        images: Tensor,
        texts: Sequence[str],
        resets: Sequence[bool],
        bins: Tensor | None = None,
        states: Tensor | None = None,
    ) -> Features:
        """See `backbone.Backbone`; `states` (B, 1, S) normalised."""
        language = self.read(texts, resets, images.device)
        views = [view[:, 0].contiguous(memory_format=torch.channels_last) for view in images.unbind(2)]
        tokens = [tower(view, language) for tower, view in zip(self.towers, views, strict=True)]
        tokens.append(self.language_token(language))
        if self.state_token is not None and states is not None:
            tokens.append(self.state_token(states.flatten(0, 1)))
        tokens.append(self.query.expand_as(tokens[0]))
        out = self.trunk(torch.stack([token.to(self.query.dtype) for token in tokens], 1) + self.kinds)
        places = (-1, *range(self._cameras))
        return Features(torch.cat([self.norm(out[:, i]) for i in places], -1)[:, None], None)

    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, for hooks."""
        layers: nn.ModuleList = self.trunk.layers
        return layers
