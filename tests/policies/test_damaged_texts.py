"""A JSON file of a checkpoint that was cut off or holds something else: one sentence that names it."""

import numpy as np
import pytest

from failsight.core.errors import FailsightError
from failsight.policies.vla.base import tiny_weights, weight_files
from failsight.policies.vla.pixels import SAVED, pixel_scaling
from failsight.training.resume import load_state
from failsight.training.tiny_data import ARRAYS, load_frames

READERS = {
    "config.json": tiny_weights,
    "model.safetensors.index.json": weight_files,
    SAVED: lambda folder: pixel_scaling(folder, "processor"),
    "training.json": lambda folder: load_state(folder, {}, None, None),
    "instructions.json": load_frames,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("text", ['{"type": ', "\xff", "3"])
def test_a_damaged_text_is_named(tmp_path, name, text):
    if name == "model.safetensors.index.json":
        (tmp_path / "config.json").write_text("{}")
    if name == "instructions.json":
        for array in ARRAYS:
            np.save(tmp_path / f"{array}.npy", np.zeros(1))
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(FailsightError, match=name):
        READERS[name](tmp_path)
