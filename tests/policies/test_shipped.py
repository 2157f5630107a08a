"""The shipped policies answer what they always answered: every figure of the demo stands on it."""

import json
from pathlib import Path

import numpy as np
import pytest

from failsight.core.errors import FailsightError
from failsight.core.rng import keyed_rng
from failsight.core.types import EpisodeKey, Task
from failsight.policies.vla.design import BackboneConfig
from failsight.policies.vla.shipped import CHECKPOINTS
from failsight.policies.vla.store import load_model
from failsight.policies.vla.tiny_backbone import TinyBackbone
from failsight.workflows.wiring import make_policy

OUTPUTS = np.load(Path(__file__).parent / "shipped_outputs.npz")
"""Of the network the weights were trained in, before it became a cell of the lattice."""
TEXTS = (
    "put the red cube in the left bin",
    "Carry the YELLOW cylinder over the wall, to the right box!",
    "stack 3 größer blocks " + "on top of the blue cube " * 4,
    "",
)
NAMES = ("tabletop-strong", "tabletop-weak")


def observation(case):
    rng = keyed_rng("shipped outputs", case)
    pictures = {n: rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for n in ("agent", "wrist")}
    state = rng.normal(0, 0.3, 11).astype(np.float32)
    return {f"observation.images.{n}": values for n, values in pictures.items()} | {"observation.state": state}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", range(4))
def test_actions_members_draws_and_hidden_states_are_what_they_were(name, case):
    """Equal to the last bit where they were stored; other processors round float32 and float16 differently."""
    policy = make_policy(name)
    policy.reset(Task(id="t", suite="s", instruction=TEXTS[0], horizon=9), EpisodeKey(seed=5, task="t", episode=case))
    if case:
        policy.reinstruct(TEXTS[case])
    output = policy.infer(observation(case), 5 * case)
    for field, tolerance in (("chunk", 1e-5), ("members", 1e-3), ("samples", 2e-3), ("hidden", 4e-3)):
        found, wanted = getattr(output, field), OUTPUTS[f"{name}.{case}.{field}"]
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_allclose(found, wanted, atol=tolerance, rtol=1e-3, err_msg=field)


@pytest.mark.parametrize("name", NAMES)
def test_states_are_guarded_by_the_range_they_always_were(name):
    np.testing.assert_array_equal(np.stack(make_policy(name).state_range), OUTPUTS[f"{name}.range"])


def test_a_causal_backbone_starts_from_a_shipped_one():
    """Towers, transformer and known words are taken; the table of positions has another length and is not."""
    shipped = load_model(CHECKPOINTS / "tabletop-strong").backbone.state_dict()
    config = BackboneConfig(width=160, depth=3, source="tabletop-strong")
    started = TinyBackbone(config, ("cube", "elephant"), 3, 1, start=True).state_dict()
    pairs = {
        "towers.1.conv2.weight": "towers.1.conv2.weight",
        "towers.2.conv2.weight": "towers.0.conv2.weight",
        "blocks_.2.qkv.weight": "trunk.layers.2.self_attn.in_proj_weight",
        "blocks_.0.down.bias": "trunk.layers.0.linear2.bias",
        "norm.weight": "norm.weight",
    }
    for name, source in pairs.items():
        np.testing.assert_array_equal(started[name], shipped[source], err_msg=name)
    vocabulary = json.loads((CHECKPOINTS / "tabletop-strong" / "config.json").read_text())["vocabulary"]
    np.testing.assert_array_equal(started["words.weight"][3], shipped["words.weight"][3 + vocabulary.index("cube")])
    assert started["positions"].shape == (24, 32)


def test_a_checkpoint_of_the_time_before_says_so(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"type": "tiny", "vocabulary": []}))
    with pytest.raises(FailsightError, match=r"is of type 'tiny'.*Train one with: failsight train-policy"):
        make_policy(str(tmp_path))
    with pytest.raises(FailsightError, match=r"has no tiny backbone \(looked for backbone.safetensors\)"):
        TinyBackbone(BackboneConfig(source=str(tmp_path)), (), 1, 1, start=True)
