"""A data set is what can be learnt from it: pictures and labels as much as actions."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from lattice_data import action_spec, demonstrations, make_config, make_data, observation_spec

from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.types import EpisodeKey, PolicyOutput, Task, to_half
from failsight.episodes.demonstrations import load_demonstrations, save_demonstrations
from failsight.policies.vla.model import VLAModel
from failsight.policies.vla.streaming import VLAPolicy
from failsight.training.loop import Split, fit
from failsight.training.options import FitConfig

FIT = FitConfig(steps=2, batch=2, warmup=1, evaluate_every=2, save_every=1, tracker="none")


def saved(folder, change=lambda item: item, **header):
    items = [change(item) for item in demonstrations(labels=True)]
    spec = header.pop("spec", action_spec(3))
    return save_demonstrations(folder, items, spec, observation_spec(), source="x", **header).fingerprint


def one_pixel(item):
    images = item.images["cam0"].copy()
    images[3, 5, 5, 1] += 1
    return replace(item, images={"cam0": images})


def one_label(name, value):
    def change(item):
        values = getattr(item, name).copy()
        values[-1] = value
        return replace(item, **{name: values})

    return change


@pytest.mark.parametrize(
    "change",
    [
        one_pixel,
        one_label("fails", np.nan),
        one_label("failing", 0.5),
        one_label("left", 7),
        lambda item: replace(item, scenario="another"),
        lambda item: replace(item, instruction=item.instruction + " now"),
        lambda item: replace(item, resets=np.ones(10, np.float32)),
    ],
)
def test_what_changes_a_training_changes_the_fingerprint(tmp_path, change):
    assert saved(tmp_path / "a") == saved(tmp_path / "b")
    assert saved(tmp_path / "c", change) != saved(tmp_path / "a")


def test_what_the_numbers_mean_is_part_of_it(tmp_path):
    plain = saved(tmp_path / "a")
    assert saved(tmp_path / "b", steps_per_frame=2) != plain
    assert saved(tmp_path / "c", spec=replace(action_spec(3), rate_hz=20.0)) != plain


def test_arrays_changed_in_place_are_refused(tmp_path):
    data = make_data(tmp_path / "set", labels=True)
    moved = shutil.copytree(tmp_path / "set", tmp_path / "moved", copy_function=shutil.copy)
    assert load_demonstrations(moved).fingerprint == data.fingerprint
    images = np.load(moved / "images.cam0.npy", mmap_mode="r+")
    images[0, 0, 0, 0] += 1
    images.flush()
    with pytest.raises(EpisodeDataError, match=r"images\.cam0\.npy is not what was written there"):
        load_demonstrations(moved)


def test_a_training_does_not_go_on_with_other_pictures(tmp_path):
    data = make_data(tmp_path / "set")
    config, split = make_config(data, "tiny", "", "fc", "one-step", "full"), Split((0, 1), (2,))
    fit(data, config, FIT, split, tmp_path / "run")
    items = [one_pixel(item) for item in demonstrations()]
    other = save_demonstrations(tmp_path / "other", items, action_spec(3), observation_spec(), source="test data")
    with pytest.raises(FailsightError, match="holds a training with other data"):
        fit(other, config, FIT, split, tmp_path / "run")


def test_a_training_does_not_go_on_with_other_dials_or_words(tmp_path):
    data = make_data(tmp_path / "set")
    config, split = make_config(data, "tiny", "", "ensemble", "one-step", "full"), Split((0, 1), (2,))

    def go(config=config, fit_=FIT, words=None):
        return fit(replace(data, phrasings=words or {}), config, fit_, split, tmp_path / "run")

    go()
    with pytest.raises(FailsightError, match="holds a training with other settings"):
        go(fit_=replace(FIT, learning_rate=2e-3))
    with pytest.raises(FailsightError, match="holds a training with other settings"):
        go(replace(config, head=replace(config.head, members=5)))
    with pytest.raises(FailsightError, match="holds a training with other wordings"):
        go(words={"go to the bottle left": ["left"]})
    assert go().last.is_dir()


def test_entries_beyond_float16_are_missing_and_the_others_stay():
    """65,504 is the largest; the next ones round to infinity in silence."""
    assert to_half(np.array([1.5, 65504, 65520, -1e5, np.inf, np.nan], np.float32)).tolist()[:2] == [1.5, 65504]
    assert np.isnan(to_half(np.array([65520, -1e5, np.inf, np.nan]))).all()
    big = np.ones((2, 3, 4), np.float32)
    big[1, 1, 1] = 7e4
    output = PolicyOutput(chunk=np.zeros((3, 4), np.float32), hidden=big[0, 0] * 1e9, samples=big, members=big)
    assert np.isnan(output.hidden).all()
    for values in (output.samples, output.members):
        assert values.dtype == np.float16
        assert np.argwhere(np.isnan(values)).tolist() == [[1, 1, 1]]
        assert np.nansum(values) == 23
    kept = np.ones(4, np.float16)
    assert PolicyOutput(chunk=np.zeros((1, 1), np.float32), hidden=kept).hidden is kept


def test_a_policy_with_a_huge_hidden_entry_emits_it_as_missing(tmp_path):
    data = make_data(tmp_path / "set")
    torch.manual_seed(0)
    model = VLAModel(make_config(data, "tiny", "", "fc", "one-step", "full"))
    with torch.no_grad():
        model.norm.weight[3], model.norm.bias[3] = 0.0, 1e5
    policy = VLAPolicy(model)
    policy.reset(Task(id="t", suite="s", instruction="go left", horizon=9), EpisodeKey(seed=0, task="t", episode=0))
    hidden = policy.infer(
        {"observation.images.cam0": data.images["cam0"][0], "observation.state": data.states[0]}, 0
    ).hidden
    assert hidden.dtype == np.float16
    assert np.flatnonzero(np.isnan(hidden)).tolist() == [3]
