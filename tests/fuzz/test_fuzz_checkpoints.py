"""Damaged checkpoint folders: refused in one sentence that names the folder, or a policy that acts within its limits."""

import json
import shutil

import numpy as np
import pytest
from fuzz_budget import at_most, cases
from lattice_data import make_config, make_data

from failsight.core.errors import FailsightError
from failsight.testing.checks import make_observations, policy_digest
from failsight.workflows.wiring import make_policy

ODD = (None, True, -1, 0, 10**9, float("nan"), float("inf"), "", "x", [], {}, [None], {"a": 1}, 0.5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    import torch

    from failsight.policies.vla.model import VLAModel
    from failsight.policies.vla.store import save_model

    root = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = make_config(make_data(root / "data"), "tiny", "", "fc", "one-step", tuning="full")
    save_model(VLAModel(config), config, root / "whole")
    return root / "whole"


def change_value(data, rng):
    """Another value, or none, at a random place of a JSON tree."""
    while True:
        keys = list(data) if isinstance(data, dict) else list(range(len(data)))
        key = keys[rng.integers(len(keys))]
        inside = data[key]
        if isinstance(inside, dict | list) and len(inside) and rng.random() < 0.7:
            data = inside
            continue
        if isinstance(data, dict) and rng.random() < 0.3:
            del data[key]
        else:
            data[key] = ODD[rng.integers(len(ODD))]
        return


def mutate(folder, case):
    rng = np.random.default_rng([99, case])
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    kind = ("value", "value", "value", "flip", "cut", "gone", "swap")[rng.integers(7)]
    path = folder / "config.json" if kind == "value" else files[rng.integers(len(files))]
    data = bytearray(path.read_bytes())
    if kind == "value":
        tree = json.loads(data)
        change_value(tree, rng)
        path.write_text(json.dumps(tree))
    elif kind == "flip":
        data[rng.integers(min(len(data), 4000))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
    elif kind == "cut":
        path.write_bytes(data[: rng.integers(len(data))])
    elif kind == "gone":
        path.unlink()
    else:
        path.write_bytes(files[rng.integers(len(files))].read_bytes())
    return f"{kind} {path.name}"


@pytest.mark.parametrize("case", cases(200))
def test_a_damaged_checkpoint_is_refused_or_acts_within_its_limits(case, checkpoint, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(checkpoint, folder)
    what = mutate(folder, case)
    told = ""
    try:
        with at_most(20 if case == 0 else 5):
            policy = make_policy(str(folder))
            observation = make_observations(policy.observation_spec, 1)[0]
            assert policy_digest(policy), what
            chunk = policy.infer(observation, 0).chunk
        assert chunk.shape[1] == len(policy.action_spec.dimensions), what
        assert not np.isfinite(chunk).any() or np.abs(chunk[np.isfinite(chunk)]).max() < 1e6, what
    except FailsightError as error:
        told = str(error)
    assert "\n" not in told, (what, told)
    assert not told or str(folder) in told, (what, told)


def test_a_folder_that_is_no_checkpoint_is_never_replaced(checkpoint, tmp_path):
    from failsight.policies.vla.store import load_model, save_model

    model = load_model(checkpoint)
    mine = tmp_path / "best"
    mine.mkdir()
    (mine / "precious.txt").write_text("mine")
    with pytest.raises(FailsightError, match="something else than a checkpoint"):
        save_model(model, model.config, mine)
    assert (mine / "precious.txt").read_text() == "mine"
    beside = tmp_path / "other.partial"
    beside.mkdir()
    (beside / "precious.txt").write_text("mine")
    save_model(model, model.config, tmp_path / "other")
    assert (beside / "precious.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "other", "other.partial"]
