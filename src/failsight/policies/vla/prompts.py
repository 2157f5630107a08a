"""Token sequences by hand: text through the tokenizer, image slots and new tokens by id.

The families' own processors insist on different things (some on a video processor); composing the sequence here gives
one layout for all of them, of which every id is known: where images stand, where the action tokens are, what came before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from failsight.core.errors import FailsightError
from failsight.policies.vla.families import ImageText

_MARKS = re.compile(r"(\{images\}|\{reset\}|\{act\})")
IMAGE = -1
"""Stands for the run of image slots while a sequence is built."""


class Layout(NamedTuple):
    """One sample's sequence of T tokens."""

    ids: Tensor
    """(T,) int64."""
    slots: Tensor
    """(T,) bool: image slots."""
    seen: Tensor
    """(T,) images that begin at or before each token."""
    acts: Tensor
    """(frames * tokens,) positions of the action tokens."""


class Composer:
    """Builds layouts for one backbone."""

    def __init__(
        self,
        tokenizer: Any,
        image: ImageText,
        templates: tuple[str, tuple[str, str]],
        new: Mapping[str, Sequence[int]],
        cameras: int,
    ) -> None:
        """`templates`: single-frame prompt, and (header, per frame); `new`: ids of `act` and `reset` tokens."""
        self._tokenizer, self._new, self._cameras = tokenizer, new, cameras
        self._single, (self._header, self._frame) = templates
        for field in ("{images}", "{instruction}", "{act}"):
            if self._single.count(field) != 1:
                raise FailsightError(f"A prompt needs {field} exactly once; this one is {self._single!r}.")
        self._image = [*map(self._special, image.before), IMAGE, *map(self._special, image.after)]
        self._slot, self._count = image.slot, image.count
        self._cache: dict[tuple[str, bool, int], Layout] = {}

    def _special(self, token: str) -> int:
        found = self._tokenizer.convert_tokens_to_ids(token)
        if found is None or found == self._tokenizer.unk_token_id:
            raise FailsightError(f"The tokenizer has no token {token!r}, which marks images in this family.")
        return int(found)

    def __call__(self, instruction: str, reset: bool, frames: int) -> Layout:
        """The layout for an instruction, `reset` after a re-instruction, over a number of frames in one sequence."""
        key = (instruction, reset, frames)
        if key not in self._cache:
            if len(self._cache) > 4096:
                self._cache.clear()
            text = self._single if frames == 1 else self._header + self._frame * frames
            self._cache[key] = self._build(text, instruction, reset)
        return self._cache[key]

    def _build(self, template: str, instruction: str, reset: bool) -> Layout:
        ids: list[int] = []
        slots: list[bool] = []
        seen: list[int] = []
        acts: list[int] = []
        images = 0

        def put(values: Sequence[int], slot: bool = False) -> None:
            ids.extend(values)
            slots.extend([slot] * len(values))
            seen.extend([images] * len(values))

        for part in self._parts(template, instruction, reset):
            if part == "{act}":
                acts += range(len(ids), len(ids) + len(self._new["act"]))
                put(self._new["act"])
            elif part == "{reset}":
                put(self._new["reset"])
            elif part == "{images}":
                for _ in range(self._cameras):
                    images += 1
                    for token in self._image:
                        put([self._slot] * self._count, slot=True) if token == IMAGE else put([token])
            else:
                put(self._tokenizer(part, add_special_tokens=False)["input_ids"])
        return Layout(torch.tensor(ids), torch.tensor(slots), torch.tensor(seen), torch.tensor(acts))

    @staticmethod
    def _parts(template: str, instruction: str, reset: bool) -> list[str]:
        """Marks, and runs of text as long as they get: a tokenizer merges across the edge of the instruction."""
        plain = instruction.replace("{", "(").replace("}", ")")  # an instruction cannot open an image
        said = "{reset}" + plain if reset else plain
        return [part for part in _MARKS.split(template.replace("{instruction}", said)) if part]


class Padded(NamedTuple):
    """A batch of layouts, padded on the right."""

    ids: Tensor
    mask: Tensor
    slots: Tensor
    seen: Tensor
    prefix: Tensor
    acts: Tensor
    """(B, frames * tokens)."""
    ends: Tensor
    """(B,) position of the last action token; appended action ids follow it."""


def pad(layouts: Sequence[Layout], pad_id: int, appended: Tensor | None, causal: bool) -> Padded:
    """Stack layouts; `appended` (B, L) ids are put right behind each sequence.

    `causal`: no token may look ahead (frames interleave), so the prefix is empty.
    """
    extra = 0 if appended is None else appended.shape[1]
    lengths = torch.tensor([len(layout.ids) for layout in layouts])
    width = int(lengths.max()) + extra
    ids = torch.full((len(layouts), width), pad_id)
    slots, seen = (
        torch.zeros(len(layouts), width, dtype=torch.bool),
        torch.zeros(len(layouts), width, dtype=torch.int64),
    )
    for row, layout in enumerate(layouts):
        n = len(layout.ids)
        ids[row, :n], slots[row, :n] = layout.ids, layout.slots
        seen[row, :n], seen[row, n:] = layout.seen, layout.seen[-1]
        if appended is not None:
            ids[row, n : n + extra] = appended[row]
    at = torch.arange(width)
    mask = at < (lengths + extra)[:, None]
    acts = torch.stack([layout.acts for layout in layouts])
    prefix = torch.zeros_like(mask) if causal else at < acts[:, :1]
    return Padded(ids, mask, slots, seen, prefix, acts, acts[:, -1])
