"""What every `tiny` backbone reads with: word rows of the training instructions and one convolution tower per camera.

No vocabulary is pretrained: the words (of any script, see `words`) are those of the training instructions, and an unknown
word says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from failsight.policies.vla.design import BackboneConfig
from failsight.policies.vla.tower import Tower
from failsight.policies.vla.whole import require_fit
from failsight.policies.vla.words import words

LANGUAGE, KEYPOINTS, WORD = 64, 48, 32
PAD, UNKNOWN, RESET = 0, 1, 2


class TinyReader(nn.Module):
    """See the module docstring. Raises FailsightError for a word rule that this version does not know."""

    def __init__(self, config: BackboneConfig, vocabulary: Sequence[str], cameras: int, word_rule: int) -> None:
        super().__init__()
        words("", word_rule)
        self.config, self._cameras, self._rule = config, cameras, word_rule
        self._index = {word: i + RESET + 1 for i, word in enumerate(vocabulary)}
        self.words = nn.Embedding(len(vocabulary) + RESET + 1, WORD, padding_idx=PAD)
        self.positions = nn.Parameter(0.02 * torch.randn(config.words, WORD))
        self.language = nn.Sequential(nn.Linear(2 * WORD, 128), nn.GELU(), nn.Linear(128, LANGUAGE))
        self.towers = nn.ModuleList(Tower(LANGUAGE, KEYPOINTS, config.width) for _ in range(cameras))
        self.language_token = nn.Linear(LANGUAGE, config.width)

    def read(self, texts: Sequence[str], resets: Sequence[bool], device: torch.device) -> Tensor:
        """(B, LANGUAGE) what B instructions say."""
        rows = [self.ids(text, reset) for text, reset in zip(texts, resets, strict=True)]
        ids = torch.tensor(rows, device=device)
        present = (ids != PAD).float()[..., None]
        embedded = self.words(ids)
        mean = (embedded * present).sum(1) / present.sum(1).clamp(min=1)
        placed = (embedded * self.positions * present).sum(1)
        out: Tensor = self.language(torch.cat([mean, placed], -1))
        return out

    def ids(self, text: str, reset: bool) -> list[int]:
        """(L,) word numbers, L = `config.words`: 0 pads, 1 is an unknown word, 2 says "re-instructed"."""
        length = self.config.words
        found = [RESET] * reset + [self._index.get(word, UNKNOWN) for word in words(text, self._rule)]
        return (found + [PAD] * length)[:length]

    def save(self, folder: Path) -> None:
        """`backbone.safetensors` with everything: the frozen part is small here."""
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / "backbone.safetensors")

    def restore(self, folder: Path) -> None:
        """Weights written by `save`. Raises FailsightError when they are others than this backbone has."""
        path = folder / "backbone.safetensors"
        found = load_file(path)
        require_fit(found, self.state_dict(), path)
        self.load_state_dict(found)
