"""Data for training: readers, bad files, windows, normalisation, augmentation."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from lattice_data import action_spec, demonstrations, make_config, make_data, observation_spec

from failsight.core.errors import EpisodeDataError, FailsightError, SpecMismatchError
from failsight.episodes.demonstrations import Demonstration, load_demonstrations, save_demonstrations
from failsight.episodes.formats.mobile_vla import read_episode, write_episode
from failsight.policies.vla.discrete import decode, encode
from failsight.policies.vla.frames import window_frames
from failsight.policies.vla.normalise import Normaliser, statistics
from failsight.training.options import Augment
from failsight.training.windows import Windows, choose_actions
from failsight.workflows.data_sets import default_cache, open_data


def recording(frames=5, side=16, **changes):
    rng = np.random.default_rng(1)
    values = {
        "name": "a",
        "instruction": "navigate around the obstacle on the left to the bottle",
        "scenario": "1box_vert_left",
        "images": {"front": rng.integers(0, 255, (frames, side, side, 3)).astype(np.uint8)},
        "states": rng.standard_normal((frames, 2)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (frames, 3)).astype(np.float32),
    }
    return Demonstration(**{**values, **changes})


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        write_episode(tmp_path / f"episode_{i}_1box_vert_left.h5", recording(), ("vx", "vy"))
    return tmp_path


def rewrite(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def test_hdf5_round_trip(folder):
    data = open_data(folder)
    item = recording()
    assert [e.length for e in data.episodes] == [5, 5, 5]
    assert data.scenarios == ("1box_vert_left",)
    assert data.observation_spec.state == ("vx", "vy")
    assert np.array_equal(data.images["front"][:5], item.images["front"])
    assert np.array_equal(data.actions[5:10], item.actions)
    assert open_data(folder).fingerprint == data.fingerprint
    again = load_demonstrations(default_cache(folder))
    assert again.fingerprint == data.fingerprint


def test_a_changed_folder_is_read_again(folder):
    assert len(open_data(folder).episodes) == 3
    write_episode(folder / "episode_9_2box_hori_right.h5", recording(scenario="2box_hori_right"), ("vx", "vy"))
    assert open_data(folder).scenarios == ("1box_vert_left", "2box_hori_right")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "damaged or half-written"),
        (lambda p: p.write_bytes(b"not a file at all"), "damaged or half-written"),
        (lambda p: rewrite(p, lambda f: f.__delitem__("actions")), "lacks actions"),
        (lambda p: rewrite(p, lambda f: replace_set(f, "images", np.zeros((5, 8, 8), np.uint8))), "pictures are"),
        (lambda p: rewrite(p, lambda f: replace_set(f, "images", np.zeros((5, 8, 9, 3), np.uint8))), "16 x 16 pixels"),
        (lambda p: rewrite(p, lambda f: replace_set(f, "images", np.zeros((5, 16, 16, 4), np.uint8))), "pictures are"),
        (
            lambda p: rewrite(p, lambda f: replace_set(f, "images", np.zeros((4, 16, 16, 3), np.uint8))),
            "lengths differ",
        ),
        (lambda p: rewrite(p, lambda f: replace_set(f, "actions", np.full((5, 3), 9.0))), "outside its declared range"),
        (lambda p: rewrite(p, lambda f: replace_set(f, "actions", np.full((5, 3), np.nan))), "expected finite numbers"),
        (lambda p: rewrite(p, lambda f: replace_set(f, "actions", np.zeros((5, 7)))), "must be"),
    ],
)
def test_bad_recordings_are_one_sentence_naming_the_file(folder, damage, message):
    path = folder / "episode_1_1box_vert_left.h5"
    damage(path)
    with pytest.raises(EpisodeDataError, match=message) as caught:
        open_data(folder)
    assert path.name in str(caught.value)
    assert sorted(p.suffix for p in folder.iterdir()) == [".h5"] * 3, "nothing is put into the data set"
    assert not default_cache(folder).exists(), "nothing half-written"


def replace_set(file, name, values):
    del file[name]
    file.create_dataset(name, data=values)


def test_a_recording_without_frames(folder):
    path = folder / "episode_1_1box_vert_left.h5"
    for name, shape in (("images", (0, 16, 16, 3)), ("actions", (0, 3)), ("states", (0, 2))):
        rewrite(path, lambda f, n=name, s=shape: replace_set(f, n, np.zeros(s, np.uint8 if n == "images" else float)))
    with pytest.raises(EpisodeDataError, match="no frames"):
        open_data(folder)


def test_a_missing_instruction_comes_from_the_file_name_or_is_an_error(tmp_path):
    path = tmp_path / "episode_1_1box_vert_right.h5"
    write_episode(path, recording())
    rewrite(path, lambda f: f.__delitem__("language_instruction"))
    assert "on the right" in read_episode(path).instruction
    path.rename(tmp_path / "episode_1.h5")
    with pytest.raises(EpisodeDataError, match="neither left nor right"):
        read_episode(tmp_path / "episode_1.h5")


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(EpisodeDataError, match="does not exist"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(EpisodeDataError, match="holds no data"):
        open_data(tmp_path)


def test_action_dimensions_are_never_dropped_silently(folder):
    data = open_data(folder)
    with pytest.raises(
        SpecMismatchError, match=r"3 action dimensions .* the model has 2; .*--action-dims linear_x linear_y"
    ):
        choose_actions(data, (), expected=2)
    assert choose_actions(data, ("linear_x", "linear_y"), expected=2) == ["linear_x", "linear_y"]
    with pytest.raises(SpecMismatchError, match="--action-dims names lateral"):
        choose_actions(data, ("lateral",))


def test_the_streamed_writer_equals_the_arrays(tmp_path):
    items = list(demonstrations(labels=True))
    data = save_demonstrations(tmp_path / "x", iter(items), action_spec(3), observation_spec(), source="s")
    assert np.array_equal(data.actions, np.concatenate([i.actions for i in items]))
    assert np.array_equal(data.left, np.concatenate([i.left for i in items]))
    mixed = [items[0], replace(items[1], left=None)]
    with pytest.raises(EpisodeDataError, match="do not both have"):
        save_demonstrations(tmp_path / "y", mixed, action_spec(3), observation_spec(), source="s")
    assert not (tmp_path / "y").exists()
    assert not (tmp_path / "y.partial").exists()


# ---------------------------------------------------------------------- numbers


def test_bins_decode_and_encode_exactly():
    bins = torch.arange(256)
    assert torch.equal(encode(decode(bins)), bins)
    values = torch.linspace(-1, 1, 999)
    assert float((decode(encode(values)) - values).abs().max()) <= 1 / 256 + 1e-6


@pytest.mark.parametrize("scheme", ["q01q99", "min-max", "mean-std", "identity"])
def test_normalisation_goes_there_and_back(scheme):
    rng = np.random.default_rng(0)
    values = rng.normal([0, 3, 0, 0], [1, 5, 0, 1], (500, 4))
    table = statistics(values, np.zeros((500, 0)))
    keep = np.array([False, False, False, True])
    plain = Normaliser(scheme, table["action"], False, table["epsilon"], keep)
    np.testing.assert_allclose(plain.backward(plain.forward(values)), values, atol=1e-4)
    assert np.array_equal(plain.forward(values)[:, 3], values[:, 3].astype(np.float32)), "binary entries pass"
    clipped = Normaliser(scheme, table["action"], True, table["epsilon"], keep).forward(values)[:, :2]
    if scheme in ("q01q99", "min-max"):
        assert np.abs(clipped).max() <= 1


def test_windows_repeat_the_first_frame_and_leave_its_loss_out(tmp_path):
    data = make_data(tmp_path / "d", episodes=2, frames=6)
    config = replace(make_config(data, "tiny", "", "lstm", "policy-head", "full", chunk=3), scheme="min-max")
    windows = Windows(data, config, (1,), None)
    assert len(windows) == 6
    batch = windows.batch(np.array([0, 1, 5]), None)
    assert torch.equal(batch.images[0, 0], batch.images[0, 2])
    assert batch.weight[0, :, 0].tolist() == [0, 0, 1]
    assert batch.weight[2, 2].tolist() == [1, 0, 0], "actions behind the end do not count"
    first = data.episodes[1].first
    assert np.array_equal(batch.images[2, 2, 0].permute(1, 2, 0).numpy(), data.images["cam0"][first + 5])
    np.testing.assert_allclose(
        windows.actions.backward(batch.target[1, 2].numpy()), data.actions[first + 1 : first + 4], atol=1e-5
    )
    assert window_frames(0, 3, 1) == ([0, 0, 0], [True, True, False])


def test_a_stride_between_frames_is_refused(tmp_path):
    items = demonstrations()
    data = save_demonstrations(tmp_path / "d", items, action_spec(3), observation_spec(), source="s", steps_per_frame=2)
    config = make_config(data, "tiny", "", "lstm", "policy-head", "full")
    with pytest.raises(SpecMismatchError, match="multiple of 2"):
        Windows(data, config, (0,), None)


def test_augmentation_depends_on_the_window_and_the_step_alone(tmp_path):
    data = make_data(tmp_path / "d")
    config = make_config(data, "tiny", "", "lstm", "policy-head", "full")
    windows = Windows(data, config, (0, 1), Augment(crop=0.1, action_noise=0.1, reset=0.5))
    together = windows.batch(np.array([3, 4, 5]), (0, 7, 0))
    alone = windows.batch(np.array([4]), (0, 7, 0))
    for one, many in zip(alone, together, strict=True):
        if isinstance(one, torch.Tensor):
            np.testing.assert_array_equal(one[0].numpy(), many[1].numpy())
    other = windows.batch(np.array([4]), (0, 8, 0))
    assert not torch.equal(other.images, alone.images)
    assert 0 <= float(alone.images.min()) <= float(alone.images.max()) <= 1


def test_paraphrases_replace_instructions(tmp_path):
    data = make_data(tmp_path / "d")
    data = replace(data, phrasings={text: ["drive there"] for text in data.instructions})
    config = make_config(data, "tiny", "", "lstm", "policy-head", "full")
    windows = Windows(data, config, (0, 1), Augment(paraphrase=0.5))
    texts = windows.batch(np.arange(20), (0, 0, 0)).texts
    assert 2 < texts.count("drive there") < 18


def test_paraphrase_tables_must_be_tables(tmp_path):
    from failsight.workflows.train import read_paraphrases

    path = tmp_path / "p.json"
    path.write_text(json.dumps(["no table"]))
    with pytest.raises(FailsightError, match="not a JSON object"):
        read_paraphrases(path)
