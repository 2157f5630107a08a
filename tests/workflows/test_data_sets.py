"""Where conversions lie, when they are made again, what a training says about its data."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from lattice_data import action_spec, demonstrations, make_data, observation_spec
from lerobot_data import episode, flat, write_folder

from failsight.core.errors import EpisodeDataError, SpecMismatchError, StorageError
from failsight.core.rng import keyed_rng
from failsight.episodes.demonstrations import Demonstration, load_demonstrations, save_demonstrations
from failsight.policies.vla.design import HeadConfig, HistoryConfig
from failsight.training.config import TrainConfig
from failsight.training.windows import Windows
from failsight.workflows.audit import audit_data
from failsight.workflows.data_sets import default_cache, open_data
from failsight.workflows.data_warnings import before_training
from failsight.workflows.train import make_config, split_of, train

SMALL = TrainConfig(head=HeadConfig(kind="fc"), history=HistoryConfig(kind="one-step", window=1), chunk=1)


def tree(folder):
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in folder.rglob("*")}


# ------------------------------------------------------------------ conversions


def test_nothing_is_written_into_a_data_set_of_others(tmp_path):
    write_folder(tmp_path / "d", [episode(4)])
    before = tree(tmp_path / "d")
    data = open_data(tmp_path / "d")
    assert tree(tmp_path / "d") == before
    assert data.folder == default_cache(tmp_path / "d")
    with pytest.raises(EpisodeDataError, match="inside the data set"):
        open_data(tmp_path / "d", tmp_path / "d" / "cache")


def test_a_file_of_the_same_size_and_date_is_another_file(tmp_path):
    write_folder(tmp_path / "d", [episode(4)])
    assert open_data(tmp_path / "d").images["front"][0].mean() == 10
    path = tmp_path / "d/data/chunk-000/file-000.parquet"
    stat = path.stat()
    write_folder(tmp_path / "e", [episode(4, pictures=flat([20, 30, 40, 50]))])
    content = (tmp_path / "e/data/chunk-000/file-000.parquet").read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert open_data(tmp_path / "d").images["front"][0].mean() == 20


def test_leftovers_of_killed_conversions_are_cleared(tmp_path):
    write_folder(tmp_path / "d", [episode(4)])
    target = default_cache(tmp_path / "d")
    old, new, other = (
        target.with_name(f".{name}") for name in (f"{target.name}-{'0' * 12}", f"{target.name}-{'1' * 12}", "x")
    )
    for path in (old, new, other):
        path.mkdir(parents=True)
        (path / "actions.raw").write_bytes(b"half")
        os.utime(path, (0, 0)) if path != new else None
    open_data(tmp_path / "d")
    assert [path.exists() for path in (old, new, other)] == [False, True, True]


def test_other_wordings_are_part_of_the_conversion(tmp_path):
    write_folder(tmp_path / "d", [episode(4)])
    assert open_data(tmp_path / "d").phrasings == {}
    data = open_data(tmp_path / "d", phrasings={"go": ("drive",)})
    assert data.phrasings == {"go": ["drive"]}
    stamp = (data.folder / "actions.npy").stat().st_ino
    open_data(tmp_path / "d", phrasings={"go": ("drive",)})
    assert (open_data(tmp_path / "d").folder / "actions.npy").stat().st_ino == stamp, "converted once"


def test_a_damaged_conversion_is_made_again(tmp_path):
    write_folder(tmp_path / "d", [episode(4)])
    first = open_data(tmp_path / "d")
    (first.folder / "actions.npy").write_bytes(b"half")
    assert np.array_equal(open_data(tmp_path / "d").actions, episode(4)["action"])
    assert load_demonstrations(first.folder).fingerprint == first.fingerprint


def test_folders_of_others_are_never_replaced_or_removed(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").write_text("mine")
    (tmp_path / "x.partial").mkdir()
    (tmp_path / "x.partial" / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="no data set of demonstrations"):
        make_data(tmp_path / "d")
    make_data(tmp_path / "x")
    make_data(tmp_path / "x", episodes=2)
    assert len(load_demonstrations(tmp_path / "x").episodes) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "x", "x.partial"], "nothing half-written"
    assert (tmp_path / "d" / "mine.txt").read_text() == (tmp_path / "x.partial" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder, header: (folder / "episodes.json").write_text("{half"),
        lambda folder, header: header["episodes"][0].pop("name"),
        lambda folder, header: header["episodes"][1].update(length=10**9),
        lambda folder, header: header["episodes"][1].update(first=-1),
        lambda folder, header: header["observation_spec"]["state"].append("z"),
        lambda folder, header: header["observation_spec"]["cameras"][0].__setitem__(1, 7),
        lambda folder, header: header.pop("phrasings"),
        lambda folder, header: np.save(folder / "states.npy", np.zeros((3, 2), np.float32)),
        lambda folder, header: np.save(folder / "actions.npy", np.zeros((30, 3), np.float64)),
        lambda folder, header: (folder / "images.cam0.npy").unlink(),
        lambda folder, header: (folder / "images.cam0.npy").write_bytes(b"\x93NUMPY"),
    ],
)
def test_damaged_demonstrations_are_one_sentence(tmp_path, damage):
    folder = make_data(tmp_path / "d").folder
    header = json.loads((folder / "episodes.json").read_text())
    damage(folder, header)
    if "half" not in (folder / "episodes.json").read_text():
        (folder / "episodes.json").write_text(json.dumps(header))
    with pytest.raises(EpisodeDataError) as caught:
        load_demonstrations(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.zeros((10, 1), np.float32)}, "1 action dimensions and the data set 3"),
        ({"states": np.zeros((10, 1), np.float32)}, "1 state entries and the data set 2"),
        ({"states": np.zeros(10, np.float32)}, "states are"),
        ({"actions": np.full((10, 3), 1e300)}, "not finite"),
        ({"chunks": np.full((10, 2, 3), np.nan)}, "not finite"),
        ({"fails": np.zeros((10, 1))}, "fails are"),
        ({"changes": ((10, "stop"),)}, "instructions change"),
        ({"changes": ((4, "stop"), (2, "go"))}, "instructions change"),
        ({"changes": ((4, " "),)}, "no instruction"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(tmp_path, change, message):
    items = (replace(item, **change) if i == 1 else item for i, item in enumerate(demonstrations()))
    with pytest.raises(EpisodeDataError, match=message):
        save_demonstrations(tmp_path / "d", items, action_spec(3), observation_spec(), source="s")
    assert not (tmp_path / "d").exists()


def test_the_fingerprint_covers_pictures_labels_and_texts(tmp_path):
    items = [replace(item, fails=np.zeros(10, np.float32)) for item in demonstrations()]

    def fingerprint(name, **changes):
        changed = [replace(items[0], **changes), *items[1:]]
        return save_demonstrations(tmp_path / name, changed, action_spec(3), observation_spec(), source="s").fingerprint

    pictures = {"cam0": items[0].images["cam0"] // 2}
    found = {
        fingerprint("a"),
        fingerprint("b", images=pictures),
        fingerprint("c", fails=np.ones(10, np.float32)),
        fingerprint("d", changes=((5, "stop"),)),
        fingerprint("e", scenario="elsewhere"),
    }
    assert len(found) == 5
    assert fingerprint("f") in found, "and nothing else"


# ------------------------------------------------------------------ texts in windows


def test_the_second_half_is_trained_with_the_second_text(tmp_path):
    texts = ["reach the cup"] * 5 + ["pour the water"] * 5
    write_folder(tmp_path / "d", [episode(task=texts), episode(task="reach the cup", number=1)])
    data = open_data(tmp_path / "d")
    assert data.instructions == ("pour the water", "reach the cup")
    assert ("episodes whose instruction changes on the way", "1 of 2") in audit_data(data).rows
    assert np.asarray(data.resets).tolist() == [0] * 5 + [1] * 5 + [0] * 10
    options = replace(SMALL, head=HeadConfig(kind="lstm"), history=HistoryConfig(window=3), chunk=4)
    config = make_config(data, options, split_of(data, (), 0, 0))
    batch = Windows(data, config, (0, 1), None).batch(np.arange(20), None)
    assert batch.texts == texts + ["reach the cup"] * 10
    assert batch.resets == [False] * 5 + [True] * 5 + [False] * 10
    assert batch.weight[4, 2].tolist() == [1, 0, 0, 0], "what was done for the next text is not taught for this one"
    assert batch.weight[5, :, 0].tolist() == [0, 0, 1], "nor is what was done for the one before"
    assert batch.weight[3, :, 0].tolist() == [1, 1, 1]


def test_a_policy_reads_another_data_set_by_name(tmp_path):
    items = list(demonstrations())
    swapped = [replace(item, states=item.states[:, ::-1]) for item in items]
    spec = observation_spec()
    one = save_demonstrations(tmp_path / "a", items, action_spec(3), spec, source="a")
    other = save_demonstrations(
        tmp_path / "b", swapped, action_spec(3), replace(spec, state=spec.state[::-1]), source="b"
    )
    config = make_config(one, SMALL, split_of(one, (), 0, 0))
    rows = np.arange(5)
    assert torch.equal(
        Windows(one, config, (0,), None).batch(rows, None).states,
        Windows(other, config, (0,), None).batch(rows, None).states,
    )
    for change in (
        {"observation_spec": replace(spec, state=("vx", "vz"))},
        {"observation_spec": replace(spec, cameras=(("cam0", 24, 32),))},
        {"observation_spec": replace(spec, cameras=(("cam1", 24, 24),))},
        {"action_spec": replace(config.action_spec, rate_hz=20.0)},
    ):
        with pytest.raises(SpecMismatchError, match="the policy reads"):
            Windows(one, replace(config, **change), (0,), None)


# ------------------------------------------------------------------ copies and warnings


def test_copies_stay_on_one_side_of_the_split_and_are_mentioned(tmp_path):
    episodes = [episode(9, number) for number in range(10)]
    write_folder(tmp_path / "d", episodes + episodes)
    data = open_data(tmp_path / "d")
    split = split_of(data, (), 0.2, 0)
    assert split.valid
    assert all((v + 10) % 20 in split.valid for v in split.valid)
    said = " ".join(before_training(data, make_config(data, SMALL, split), split))
    assert "10 of 20 episodes are exact copies" in said
    write_folder(tmp_path / "e", [episodes[0]] * 4)
    assert split_of(open_data(tmp_path / "e"), (), 0.2, 0).valid == ()


def test_without_copies_the_split_is_the_one_it_always_was(tmp_path):
    data = make_data(tmp_path / "d", episodes=10)
    valid = tuple(sorted(keyed_rng("split", 0).permutation(10)[:2].tolist()))
    assert split_of(data, (), 0.2, 0) == (tuple(i for i in range(10) if i not in valid), valid)


def test_near_copies_across_the_split_are_mentioned(tmp_path):
    episodes = [episode(9, number) for number in range(10)]
    near = [episode(9, n, action=item["action"] + np.float32(1e-3)) for n, item in enumerate(episodes)]
    write_folder(tmp_path / "d", episodes + near)
    data = open_data(tmp_path / "d")
    split = split_of(data, (), 0.2, 0)
    assert "nearly the same" in " ".join(before_training(data, make_config(data, SMALL, split), split))


def test_a_training_says_what_it_cannot_learn_before_the_first_step(tmp_path):
    texts = ["go!", "Go", "stop"]
    episodes = [episode(12, n, task=texts[n % 3]) for n in range(6)]
    for item in episodes:
        item["action"][:, 1] = 0.25
    write_folder(tmp_path / "d", episodes)
    data = open_data(tmp_path / "d")
    told = []
    options = replace(SMALL, fit=replace(SMALL.fit, steps=1, batch=2, tracker="none"))
    train(tmp_path / "d", options, tmp_path / "out", note=told.append)
    said = " ".join(told)
    assert "cannot tell these instructions apart (same tokens): 'Go', 'go!'" in said
    assert "action_1 never changes (0.25)" in said
    assert json.loads((tmp_path / "out/case.json").read_text())["warnings"] == [
        t.removeprefix("careful: ") for t in told
    ]
    warnings = " ".join(audit_data(data).warnings)
    assert "'Go', 'go!'" in warnings
    assert "action_1 never changes" in warnings


def test_the_audit_warns_of_what_moves_rarely(tmp_path):
    rng = np.random.default_rng(3)
    items = []
    for i in range(10):
        actions = rng.normal(0, 0.3, (60, 3)).astype(np.float32).clip(-2, 2)
        actions[:, 2] = 0
        if i % 2 == 0:
            actions[30, 2] = 1.5
        images = {"cam0": np.zeros((60, 24, 24, 3), np.uint8)}
        states = rng.standard_normal((60, 2)).astype(np.float32)
        items.append(
            Demonstration(
                name=f"{i}", instruction="go", scenario=f"{i % 3}", images=images, states=states, actions=actions
            )
        )
    data = save_demonstrations(tmp_path / "d", items, action_spec(3), observation_spec(), source="s")
    assert "angular_z rarely moves" in " ".join(audit_data(data).warnings)
    config = make_config(data, SMALL, split_of(data, (), 0.1, 0))
    windows = Windows(data, config, range(10), None)
    command = np.array([[0, 0, 1.5]])
    assert windows.actions.backward(windows.actions.forward(command))[0, 2] == 1.5
