"""How a backbone's pixels are scaled, as its own image processor does it; never guessed.

A vision tower fed with another mean and deviation still answers, only worse, so a checkpoint that does not say is refused
unless the person who trains chooses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from failsight.core.errors import FailsightError
from failsight.core.foreign import read_number
from failsight.core.textfiles import read_json

PixelChoice = Literal["checkpoint", "symmetric"]
SAVED = "pixels.json"
"""In checkpoints trained in full: what was used."""


class PixelScaling(NamedTuple):
    """(value - mean) / std per channel, values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


SYMMETRIC = PixelScaling((0.5,) * 3, (0.5,) * 3)
"""To [-1, 1]."""
_PLAIN = PixelScaling((0.0,) * 3, (1.0,) * 3)


def pixel_scaling(folder: Path, choice: PixelChoice) -> PixelScaling:
    """Of the image processor in a model's folder; `symmetric` where somebody chose that.

    Raises FailsightError when the folder does not say and nobody chose, or what it says cannot be used.
    """
    if (folder / SAVED).is_file():
        saved = read_json(folder / SAVED)
        if not isinstance(saved, list) or len(saved) != 2:
            raise FailsightError(f"{folder / SAVED} does not hold a mean and a deviation; train again.")
        mean, std = saved
        return _checked({"image_mean": mean, "image_std": std}, folder / SAVED)
    if choice == "symmetric":
        return SYMMETRIC
    data = _processor(folder)
    if data.get("do_normalize") is False:
        return _PLAIN
    if "image_mean" not in data or "image_std" not in data:
        raise FailsightError(
            f"{folder} does not say how its pictures are scaled (no image_mean and image_std in "
            "preprocessor_config.json or processor_config.json). Put the model's own file there, or choose scaling to "
            "[-1, 1] with --backbone.pixels symmetric."
        )
    return _checked(data, folder)


def save_scaling(scaling: PixelScaling, folder: Path) -> None:
    """Inverse of reading `pixels.json`."""
    (folder / SAVED).write_text(json.dumps([list(scaling.mean), list(scaling.std)]))


def _processor(folder: Path) -> Mapping[str, Any]:
    from transformers.image_processing_utils import BaseImageProcessor

    try:
        data, _ = BaseImageProcessor.get_image_processor_dict(str(folder))
    except OSError:
        return {}
    found: Mapping[str, Any] = data
    return found


def _checked(data: Mapping[str, Any], place: Path) -> PixelScaling:
    values = []
    for name, low in (("image_mean", -10.0), ("image_std", 1e-6)):
        entries = data[name]
        if not isinstance(entries, list | tuple) or len(entries) != 3:
            raise FailsightError(f"{place}: {name} should be three numbers and is {entries!r}.")
        values.append(tuple(read_number(v, f"{place}: {name}", low, 10.0) for v in entries))
    return PixelScaling(*values)
