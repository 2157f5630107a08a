"""LeRobot folders of others: what the rows say is believed, what contradicts them is refused."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_data import (
    CAMERA,
    SIDE,
    episode,
    flat,
    video_of,
    write_folder,
    write_info,
    write_rows,
    write_table,
    write_video,
)

from failsight.core.errors import EpisodeDataError
from failsight.episodes.formats.lerobot import LeRobotFolder, _names
from failsight.storage.pictures import embedded


def greys(item):
    return np.rint(item.images["front"].mean((1, 2, 3))).astype(int).tolist()


def read(root):
    folder = LeRobotFolder(root)
    folder.specs()
    return list(folder.episodes())


def three():
    return [episode(10, number, task=f"task {'abc'[number]}") for number in range(3)]


def same(items, episodes):
    assert len(items) == len(episodes)
    for item, wanted in zip(items, episodes, strict=True):
        np.testing.assert_array_equal(item.actions, wanted["action"])
        np.testing.assert_array_equal(item.states, wanted["observation.state"])
        assert greys(item) == wanted["pictures"].mean((1, 2, 3)).astype(int).tolist()
        assert item.instruction == wanted["tasks"][0]


# ------------------------------------------------------------------ boundaries


def test_the_rows_own_keys_decide_where_an_episode_lies(tmp_path):
    episodes = three()
    write_folder(tmp_path, episodes)
    write_table(tmp_path, episodes, 10, dataset_from_index=[0, 5, 15], dataset_to_index=[10, 15, 25])
    same(read(tmp_path), episodes)


def test_rows_may_lie_in_any_order_and_any_file(tmp_path):
    episodes = three()
    order = np.random.default_rng(0).permutation(30)
    write_folder(tmp_path, episodes, files=4, rearrange=lambda rows: [rows[i] for i in order])
    same(read(tmp_path), episodes)


def test_an_episode_spread_over_files_keeps_its_order(tmp_path):
    episodes = three()
    write_folder(tmp_path, episodes, files=7)
    same(read(tmp_path), episodes)
    (tmp_path / "data/chunk-000/._file-000.parquet").write_bytes(b"left by another system")
    same(read(tmp_path), episodes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:4] + rows[5:], r"episode 0 10 frames and data/ holds 9"),
        (lambda rows: [*rows, rows[7]], r"episode 0 10 frames and data/ holds 11"),
        (lambda rows: [*rows[:4], {**rows[4], "frame_index": 5}, *rows[5:]], r"episode 0: frame 5 occurs twice"),
        (lambda rows: [*rows[:9], {**rows[9], "frame_index": 12}, *rows[10:]], r"jumps from 8 to 12"),
        (lambda rows: [*rows[:9], {**rows[9], "timestamp": 0.3}, *rows[10:]], r"time does not increase at row 9"),
        (lambda rows: [*rows[:9], {**rows[9], "timestamp": 1.3}, *rows[10:]], r"time jumps from 0.8 to 1.3"),
        (lambda rows: [{**r, "timestamp": r["timestamp"] * 0.8} for r in rows], r"rows are 0.08 s apart"),
        (lambda rows: [{**r, "timestamp": float("nan")} for r in rows], r"timestamp is not finite"),
        (lambda rows: [{**r, "episode_index": 7} for r in rows], r"episode 0 10 frames and data/ holds 0"),
        (lambda rows: [{**r, "episode_index": -1} for r in rows], r"episode_index holds numbers that are no indices"),
        (lambda rows: [{**r, "frame_index": 0.5} for r in rows], r"frame_index holds numbers that are no indices"),
        (lambda rows: [{**r, "task_index": 9} for r in rows], r"task 9 is not in meta/tasks.parquet"),
        (lambda rows: [{k: v for k, v in r.items() if k != "frame_index"} for r in rows], r"has no column frame_index"),
        (lambda rows: [{**r, "action": [1.0, np.nan]} for r in rows], r"entry \(0, 1\) is nan"),
        (lambda rows: [{**r, "action": [1.0, 2.0, 3.0]} for r in rows], r"action has 3 entries at row 0"),
        (lambda rows: [{**r, "action": [1.0]} if i == 3 else r for i, r in enumerate(rows)], r"1 entries at row 3"),
        (lambda rows: [{**r, "action": None} if i == 3 else r for i, r in enumerate(rows)], r"missing in 1 of 30 rows"),
        (lambda rows: [{**r, "observation.state": [1.0, float("inf")]} for r in rows], r"is inf"),
    ],
)
def test_rows_that_contradict_themselves_or_the_table_are_refused(tmp_path, change, message):
    write_folder(tmp_path, three(), rearrange=change)
    with pytest.raises(EpisodeDataError, match=message) as caught:
        read(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kind", [pa.string(), pa.bool_(), pa.list_(pa.bool_()), pa.list_(pa.list_(pa.float32()))])
def test_actions_that_are_no_numbers_are_refused(tmp_path, kind):
    write_folder(tmp_path, [episode(4, size=1)])
    path = tmp_path / "data/chunk-000/file-000.parquet"
    value = {pa.string(): "1.0", pa.bool_(): True, pa.list_(pa.bool_()): [True]}.get(kind, [[1.0]])
    table = pq.read_table(path)
    at = table.schema.get_field_index("action")
    pq.write_table(table.set_column(at, "action", pa.array([value] * 4, kind)), path)
    with pytest.raises(EpisodeDataError, match="should hold numbers"):
        read(tmp_path)


def test_two_names_for_one_episode_and_shared_pictures_are_refused(tmp_path):
    episodes = three()
    write_folder(tmp_path, episodes, video=True)
    write_table(tmp_path, episodes, 10, episode_index=[0, 1, 1])
    with pytest.raises(EpisodeDataError, match="episode 1 occurs twice"):
        read(tmp_path)
    write_table(tmp_path, episodes, 10, **{f"videos/{CAMERA}/from_timestamp": [0, 0.5, 1.5]})
    with pytest.raises(EpisodeDataError, match="points to the wrong pictures"):
        read(tmp_path)


# ------------------------------------------------------------------ texts


def test_a_text_that_changes_half_way_holds_from_there(tmp_path):
    texts = ["reach the cup"] * 5 + ["pour the water"] * 5
    write_folder(tmp_path, [episode(task=texts), episode(task="reach the cup", number=1)])
    first, second = read(tmp_path)
    assert (first.instruction, first.changes) == ("reach the cup", ((5, "pour the water"),))
    assert first.scenario == "reach the cup / pour the water"
    assert second.changes == ()


# ------------------------------------------------------------------ pictures


@pytest.mark.parametrize(
    ("keep", "times"),
    [
        (range(20), [t / 10 for t in range(20)]),
        ([t // 3 for t in range(60)], [t / 30 for t in range(60)]),
        (range(20), [max(0, t / 10 - 0.02) for t in range(20)]),
        (range(20), [t / 10 + 0.03 * (t % 2) for t in range(20)]),
    ],
    ids=["own rate", "three times the rate", "early", "jitter"],
)
def test_each_row_gets_the_picture_of_its_time(tmp_path, keep, times):
    episodes = [episode(10), episode(10, number=1)]
    write_folder(tmp_path, episodes, video=True)
    pictures = flat([10 + 10 * t for t in keep])
    write_video(video_of(tmp_path), pictures, times)
    seen = [level for item in read(tmp_path) for level in greys(item)]
    np.testing.assert_allclose(seen, [10 + 10 * t for t in range(20)], atol=3)


@pytest.mark.parametrize("tail", [False, True])
def test_a_dropped_picture_is_a_refusal_never_the_next_one(tmp_path, tail):
    episodes = [episode(10), episode(10, number=1)]
    write_folder(tmp_path, episodes, video=True)
    kept = [t for t in range(20) if t != 4]
    times = [t / 10 for t in kept] + ([2.0] if tail else [])
    write_video(video_of(tmp_path), flat([10 + 10 * t for t in kept] + ([200] if tail else [])), times)
    with pytest.raises(
        EpisodeDataError, match=r"episode 0, frame 4: .*file-000.mp4 has no picture within 0.05 s of 0.4"
    ):
        read(tmp_path)


def test_a_rate_that_is_not_whole_is_kept(tmp_path):
    write_folder(tmp_path, [episode(10), episode(10, number=1)], fps=2.5, video=True)
    folder = LeRobotFolder(tmp_path)
    assert folder.specs()[0].rate_hz == 2.5
    np.testing.assert_allclose(greys(folder.episode(1)), [10 * (t + 1) + 1 for t in range(10)], atol=3)


@pytest.mark.parametrize("fps", [0, -1, "ten", None, float("inf"), 1e9, True])
def test_rates_that_are_none_are_refused(tmp_path, fps):
    write_folder(tmp_path, [episode(4)])
    write_info(tmp_path, fps, episode(4))
    with pytest.raises(EpisodeDataError, match="fps"):
        read(tmp_path)


def test_pictures_of_another_size_or_kind_are_refused(tmp_path):
    write_folder(tmp_path, [episode(4)], video=True)
    write_video(video_of(tmp_path), flat(range(4), side=64), np.arange(4) / 10)
    with pytest.raises(EpisodeDataError, match="pictures of 64 x 64"):
        read(tmp_path)
    video_of(tmp_path).write_text("#EXTM3U\nfile:///etc/hostname\n")
    with pytest.raises(EpisodeDataError, match="damaged or missing"):
        read(tmp_path)
    for value in (None, {"bytes": b"#EXTM3U"}, {"path": "../x.png"}, {"path": "/etc/hostname"}, {"bytes": b"\x89PNG"}):
        with pytest.raises(EpisodeDataError, match="picture"):
            embedded(value, tmp_path, (SIDE, SIDE), "here")


def test_pictures_beside_the_rows_are_found(tmp_path):
    from failsight.storage.images import write_png

    write_png(tmp_path / "a.png", flat([40])[0])
    assert embedded({"bytes": None, "path": "a.png"}, tmp_path, (SIDE, SIDE), "here").mean() == 40


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path):
    write_folder(tmp_path, [episode(4)])
    item = episode(4, pictures=np.broadcast_to(np.uint8(0), (4, 60_000, 60_000, 3)))
    write_info(tmp_path, 10, item)
    with pytest.raises(EpisodeDataError, match="GiB"):
        read(tmp_path)


@pytest.mark.parametrize("path", ["/etc/{video_key}.mp4", "../{video_key}.mp4", "{nothing}.mp4", 7, None])
def test_a_video_path_stays_inside_the_folder(tmp_path, path):
    write_folder(tmp_path, [episode(4)], video=True)
    write_info(tmp_path, 10, episode(4), True, video_path=path)
    with pytest.raises(EpisodeDataError, match="path"):
        read(tmp_path)


# ------------------------------------------------------------------ names and counts


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (None, ("action_0", "action_1")),
        (["pan", "lift"], ("pan", "lift")),
        ({"motors": ["pan", "lift"]}, ("pan", "lift")),
        ({"left": ["pan"], "right": ["lift"]}, ("pan", "lift")),
        ({"lift": 1, "pan": 0}, ("pan", "lift")),
        ([["pan", "lift"]], ("pan", "lift")),
        (["actions"], ("action_0", "action_1")),
        ({"axes": {"a": ["pan"], "b": ["lift"]}}, ("pan", "lift")),
    ],
)
def test_names_come_as_lists_maps_and_nested(tmp_path, names, wanted):
    write_folder(tmp_path, [episode(4)], names=names)
    assert LeRobotFolder(tmp_path).specs()[0].names == wanted


def test_names_that_are_the_same_are_refused(tmp_path):
    write_folder(tmp_path, [episode(4)], names=["a", "a"])
    with pytest.raises(EpisodeDataError, match="'a' occurs twice"):
        LeRobotFolder(tmp_path)
    assert _names({"a": 0, "b": 0}) == []


@pytest.mark.parametrize("stats", [None, {}, {"action": {}}, {"action": {"min": [9, 9], "max": [9, 9]}}])
def test_ranges_are_those_of_the_rows_whatever_the_statistics_say(tmp_path, stats):
    episodes = three()
    write_folder(tmp_path, episodes, stats=stats)
    spec = LeRobotFolder(tmp_path).specs()[0]
    actions = np.concatenate([item["action"] for item in episodes])
    np.testing.assert_array_equal(spec.low, actions.min(0))
    np.testing.assert_array_equal(spec.high, actions.max(0))


def test_counts_in_the_header_are_not_used(tmp_path):
    write_folder(tmp_path, three())
    assert json.loads((tmp_path / "meta/info.json").read_text())["total_episodes"] == 99
    assert len(LeRobotFolder(tmp_path)) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: (root / "meta/info.json").write_text("{half"),
        lambda root: (root / "meta/info.json").write_text("[" * 100_000),
        lambda root: (root / "meta/info.json").write_bytes(b"\xff\xfe{}"),
        lambda root: (root / "meta/info.json").write_text("[1]"),
        lambda root: write_info(root, 10, episode(4), features=[]),
        lambda root: write_info(root, 10, episode(4), features={"action": {"dtype": "float32"}}),
        lambda root: write_info(root, 10, episode(4), features={"action": {"dtype": "float32", "shape": [2, 7]}}),
        lambda root: (root / "meta/tasks.parquet").unlink(),
        lambda root: pd.DataFrame({"x": [1]}).to_parquet(root / "meta/tasks.parquet"),
        lambda root: (root / "meta/episodes/chunk-000/file-000.parquet").unlink(),
        lambda root: pd.DataFrame({"x": [1]}).to_parquet(root / "meta/episodes/chunk-000/file-000.parquet"),
        lambda root: (root / "data/chunk-000/file-000.parquet").write_bytes(b"PAR1"),
        lambda root: (root / "data/chunk-000/file-000.parquet").unlink(),
        lambda root: write_rows(root / "data/chunk-000/file-001.parquet", [{"episode_index": 0}]),
    ],
)
def test_damage_is_one_sentence_naming_the_place(tmp_path, damage):
    write_folder(tmp_path, [episode(4)])
    damage(tmp_path)
    with pytest.raises(EpisodeDataError) as caught:
        read(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
