"""A JSON file of a checkpoint that was cut off or holds something else: one sentence that names it."""

import pytest

from failsight.core.errors import FailsightError
from failsight.policies.vla.base import weight_files
from failsight.policies.vla.design import BackboneConfig
from failsight.policies.vla.pixels import SAVED, pixel_scaling
from failsight.policies.vla.tiny_backbone import TinyBackbone
from failsight.training.resume import load_state

READERS = {
    "config.json": lambda folder: TinyBackbone(BackboneConfig(source=str(folder)), (), 1, 1, start=True),
    "model.safetensors.index.json": weight_files,
    SAVED: lambda folder: pixel_scaling(folder, "processor"),
    "training.json": lambda folder: load_state(folder, {}, None, None),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("text", ['{"type": ', "\xff", "3"])
def test_a_damaged_text_is_named(tmp_path, name, text):
    if name == "model.safetensors.index.json":
        (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(FailsightError, match=name):
        READERS[name](tmp_path)
