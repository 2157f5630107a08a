"""Logs of others, value by value: what is read is what was meant, and the rest is refused by file, line and key."""

import gzip
import io
import json
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError
from failsight.episodes.formats.actprobe import log_files, read_actprobe
from failsight.episodes.logged import LogOrigin
from failsight.workflows.import_logs import import_log

ORIGIN = LogOrigin(policy="p", suite="s", horizon=40, rate_hz=4.0)


def write_lines(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# --- values of others ---------------------------------------------------------------------------------------------------


def record_with(**changes):
    steps = [{"t": t, "a": 0.5 + t} for t in range(3)]
    return {"episode_id": 0, "success": True, "length": 3, "steps": steps} | changes


def read_one(tmp_path, *records):
    return read_actprobe([write_lines(tmp_path / "log/a.jsonl", *records)])


@pytest.mark.parametrize(
    ("value", "meant"), [("False", False), ("0", False), (0, False), (" TRUE ", True), (1.0, True)]
)
def test_success_is_what_it_says(tmp_path, value, meant):
    assert read_one(tmp_path, record_with(success=value)).episodes[0].success is meant


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"success": [True]}, r"a.jsonl:1: success is \[True\]"),
        ({"success": 0.4}, "success is 0.4"),
        ({"success": -1}, "success is -1"),
        ({"success": None}, "success is None"),
        ({"episode_id": 2**70}, r"a.jsonl:1 episode_id: expected a whole number from 0 to"),
        ({"episode_id": -1}, "episode_id: expected a whole number from 0"),
        ({"episode_id": "x"}, "episode_id: expected a number"),
        ({"length": 4}, "a.jsonl:1 says 4 steps and has 3"),
        ({"steps": []}, "at least one object"),
        ({"steps": {"a": 1}}, "steps must be a list"),
        ({"length": 1, "steps": [{"t": 0}]}, "a.jsonl holds no signal"),
        ({"steps": [{"t": 0, "a": 1}, {"t": 2, "a": 1}, {"t": 2, "a": 1}]}, "step time t does not increase at row 2"),
        ({"steps": [{"t": 1, "a": 1}, {"t": 0, "a": 1}, {"t": 2, "a": 1}]}, "step time t does not increase at row 1"),
        ({"steps": [{"t": 0, "a": 1}, {"a": 1}, {"t": 2, "a": 1}]}, "1 of 3 steps have no t"),
        ({"steps": [{"a": 1}, {"a": "0.5"}, {"a": 1}]}, r"steps\[1\].a: expected a number, found '0.5'"),
        ({"steps": [{"a": 1}, {"a": [1, 2]}, {"a": 1}]}, "a is a list of 2; in an earlier step it is a number"),
        ({"steps": [{"a": [1]}, {"a": [1, 2]}, {"a": [1]}]}, "a is a list of 2; in an earlier step it is a list of 1"),
        ({"steps": [{"a.b": 1, "a": {"b": 2}}] * 3}, "two values are called a.b"),
        ({"steps": [{"a": 1}, 7, {"a": 1}]}, r"steps\[1\]: expected an object"),
        ({"task_description": 7}, "task_description: expected text"),
        ({"task_description": "\ud800"}, "broken character"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_place(tmp_path, changes, message):
    with pytest.raises(EpisodeDataError, match=message):
        read_one(tmp_path, record_with(**changes))


def test_values_that_are_not_finite_are_missing_and_counted(tmp_path):
    steps = [{"a": 1.0, "b": 0}, {"a": float("inf"), "b": 1}, {"a": None, "b": 2}, {"a": 1e39, "b": float("nan")}]
    log = read_one(tmp_path, record_with(length=4, steps=steps))
    np.testing.assert_array_equal(log.episodes[0].signals, [[1, 0], [np.nan, 1], [np.nan, 2], [np.nan, np.nan]])
    assert log.notes == ("4 values are not finite numbers and count as missing (a 3, b 1)",)
    run = import_log("", tmp_path / "log", tmp_path / "run", replace(ORIGIN, horizon=None))
    assert "4 values are not finite" in run.meta.note


def test_signals_go_by_name_whatever_their_order(tmp_path):
    first = record_with(length=2, steps=[{"a": 1, "b": 2}, {"b": 4, "a": 3}])
    log = read_one(tmp_path, first, record_with(episode_id=1, length=1, steps=[{"b": 6, "a": 5}]))
    np.testing.assert_array_equal(log.episodes[0].signals, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(log.episodes[1].signals, [[5, 6]])


def test_an_episode_is_counted_once(tmp_path):
    with pytest.raises(EpisodeDataError, match=r"a.jsonl:2: episode 0 of task a stands in .*a.jsonl:1 already"):
        read_one(tmp_path, record_with(), record_with())
    for name in ("a.jsonl", "a.jsonl.gz"):
        with (gzip.open if name.endswith("gz") else open)(tmp_path / "log" / name, "wt") as file:
            file.write(json.dumps(record_with()))
    with pytest.raises(EpisodeDataError, match="episode 0 occurs twice"):
        import_log("", tmp_path / "log", tmp_path / "run", ORIGIN)
    log = read_one(tmp_path, record_with(), record_with(episode_id=1))
    assert "1 episodes have exactly the signals of another one" in log.notes[0]


def test_a_file_of_several_tasks_keeps_them_apart(tmp_path):
    log = read_one(tmp_path, record_with(task_id=3), record_with(task_id=5, steps=[{"a": 9}] * 3))
    assert [e.task for e in log.episodes] == ["a-3", "a-5"]
    assert {e.task for e in read_one(tmp_path, record_with(task_id=3)).episodes} == {"a"}


def test_uneven_steps_and_single_steps_are_said(tmp_path):
    uneven = [{"t": t, "a": 1.5} for t in (0, 1, 5)]
    log = read_one(tmp_path, record_with(steps=uneven), record_with(episode_id=1, length=1, steps=[{"t": 0, "a": 1}]))
    assert any("1 episodes have unequal time between steps" in note for note in log.notes)
    assert any("1 episodes have a single step" in note for note in log.notes)


# --- npz ----------------------------------------------------------------------------------------------------------------


def npz_arrays(**changes):
    signals = np.random.default_rng(0).random((5, 10)).astype(np.float32)
    for base, change in ((3, 7), (6, 9)):  # as released: columns that are the size of another one's change
        for start in (0, 2):
            rows = slice(start, (2, 5)[start > 0])
            signals[rows, change] = np.abs(np.diff(signals[rows, base], prepend=signals[start, base]))
    signals[:, 8] = signals[:, 7] + 0.1
    return {
        "signals10": signals,
        "hidden": np.ones((5, 3), np.float16),
        "length": np.array([2, 3]),
        "success": np.array([True, False]),
        "episode_id": np.array([0, 1]),
        "seed": np.array([4, 5]),
        "instruction": np.array(["do it", ""]),
    } | changes


def read_npz_of(tmp_path, **changes):
    kept = {name: value for name, value in npz_arrays(**changes).items() if value is not None}
    np.savez(tmp_path / "Open.npz", **kept)
    return read_actprobe([tmp_path / "Open.npz"])


def test_npz_columns_are_named_by_position_and_say_so(tmp_path):
    log = read_npz_of(tmp_path)
    assert [c.name for c in log.columns][3:5] == ["eef_z", "chunk_mse"]
    assert log.notes == ("the ten signals of 1 npz files have no names there and were named by their position",)
    assert [e.instruction for e in log.episodes] == ["do it", "Open"]
    swapped = npz_arrays()["signals10"][:, [0, 1, 2, 7, 4, 5, 6, 3, 8, 9]]
    assert "Open.npz: these positions look wrong" in read_npz_of(tmp_path, signals10=swapped).notes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signals10": np.zeros((5, 9), np.float32)}, r"signals10: expected shape \(any, 10\), found \(5, 9\)"),
        ({"signals10": np.zeros((5, 10), "U3")}, "signals10: expected numbers"),
        ({"success": np.array([1.0, 0.4])}, r"success\[1\]: success is 0.4"),
        ({"success": np.array([1, -1])}, "success is -1"),
        ({"success": np.array([[True], [False]])}, r"success has shape \(2, 1\)"),
        ({"length": np.array([2.0, np.nan])}, r"length\[1\]: expected a finite number"),
        ({"length": np.array([5, 0])}, r"length\[1\]: expected a whole number from 1"),
        ({"length": np.array([2, 2])}, "has 5 steps but its lengths add up to 4"),
        ({"length": np.array([2**62, 3])}, "its lengths add up to"),
        ({"episode_id": np.array([1, 1])}, "episode 1 of task Open stands in"),
        ({"episode_id": np.array([-1, 1])}, "expected a whole number from 0"),
        ({"seed": np.array([0.5, 1])}, r"seed\[0\]: expected a whole number"),
        ({"seed": None}, "has no array seed"),
        ({"hidden": np.ones((4, 3), np.float16)}, r"hidden: expected floats of shape \(5, any\)"),
        ({"hidden": np.ones((5, 3), int)}, "hidden: expected floats"),
        ({"instruction": np.array([{}, {}], dtype=object)}, "instruction holds object"),
    ],
)
def test_npz_arrays_are_read_and_not_cast(tmp_path, changes, message):
    with pytest.raises(EpisodeDataError, match=message):
        read_npz_of(tmp_path, **changes)


def test_hidden_states_beyond_float16_are_missing(tmp_path):
    hidden = np.ones((5, 3), np.float32)
    hidden[1, 2], hidden[4, 0] = 1e6, np.inf
    log = read_npz_of(tmp_path, hidden=hidden)
    kept = np.concatenate([e.hidden for e in log.episodes])
    assert np.argwhere(np.isnan(kept)).tolist() == [[1, 2], [4, 0]]
    assert "2 values are not finite numbers and count as missing (hidden 2)" in log.notes


def rewrite_npz(path, **members):
    """The npz with the raw bytes of some members replaced or added."""
    with zipfile.ZipFile(path) as archive:
        kept = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (kept | {f"{n}.npy": d for n, d in members.items()}).items():
            archive.writestr(name, data)


def npy_header(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_memory_is_taken_only_for_what_is_there(tmp_path, monkeypatch):
    read_npz_of(tmp_path)
    huge = npy_header((10**12, 10))  # 40 TB, of which not one byte is there
    rewrite_npz(tmp_path / "Open.npz", unread=huge)
    assert len(read_actprobe([tmp_path / "Open.npz"]).episodes) == 2
    rewrite_npz(tmp_path / "Open.npz", signals10=huge)
    with pytest.raises(EpisodeDataError, match=r"signals10 promises shape \(1000000000000, 10\) of float32"):
        read_actprobe([tmp_path / "Open.npz"])
    monkeypatch.setattr("failsight.episodes.formats.actprobe_npz.MEMBER_LIMIT", 2**20)
    rewrite_npz(tmp_path / "Open.npz", signals10=npy_header((2**19, 10)) + b"\0" * 2**22)
    with pytest.raises(EpisodeDataError, match="signals10 takes 4 MiB, more than the limit of 1"):
        read_actprobe([tmp_path / "Open.npz"])


@pytest.mark.parametrize(("limit", "value"), [("LINE_LIMIT", 2**20), ("FILE_LIMIT", 2**20)])
def test_gzip_bombs_stop_at_the_limit(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(f"failsight.episodes.formats.json_lines.{limit}", value)
    bomb = gzip.compress(b" " * 2**22 if limit == "LINE_LIMIT" else b"\n" * 2**22)
    (tmp_path / "a.jsonl.gz").write_bytes(bomb)
    with pytest.raises(EpisodeDataError, match=r"a.jsonl.gz:\d+ goes beyond the limit"):
        read_actprobe([tmp_path / "a.jsonl.gz"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n" * 100_001, "a.jsonl:100001 goes beyond the limit"),
        ('{"steps": [' + "{}," * 2**18 + "{}]}", "a.jsonl:1 has more than 262144 objects and lists"),
        (
            json.dumps({"episode_id": 0, "success": 1, "steps": [{f"s{i}": 1 for i in range(1025)}]}),
            "than the 1024 that",
        ),
    ],
)
def test_more_than_a_log_can_have_is_refused(tmp_path, text, message):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(EpisodeDataError, match=message):
        read_actprobe([tmp_path / "a.jsonl"])


def test_the_size_of_a_log_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("failsight.episodes.formats.log_steps.EPISODE_VALUES", 8)
    with pytest.raises(EpisodeDataError, match=r"a.jsonl:1 has 3 signals at 3 steps; at most"):
        read_one(tmp_path, record_with(steps=[{"a": 1, "b": 1, "c": 1}] * 3))
    monkeypatch.setattr("failsight.episodes.formats.actprobe.LOG_LIMIT", 20)
    with pytest.raises(EpisodeDataError, match="import its files in parts"):
        read_one(tmp_path, record_with(), record_with(episode_id=1, steps=[{"a": 2}] * 3))


# --- files and folders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (json.dumps(record_with()).encode("utf-16"), "looks like UTF-16"),
        (json.dumps(record_with()).encode("utf-16-le"), "looks like UTF-16"),
        (
            json.dumps(record_with(task_description="caf\xe9"), ensure_ascii=False).encode("latin-1"),
            "a.jsonl:1 is not UTF-8",
        ),
        (b"[" * 100_000, "a.jsonl:1 is nested too deeply"),
        (b'{"episode_id": 0, "success": false, "success": true}', "a.jsonl:1 .*'success' stands twice"),
        (b"[1, 2]", "a.jsonl:1 holds a list; expected an object"),
        (b"", "a.jsonl holds no episode"),
    ],
)
def test_other_encodings_and_shapes_of_text_are_named(tmp_path, data, message):
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(EpisodeDataError, match=message):
        read_actprobe([tmp_path / "a.jsonl"])


def test_a_byte_order_mark_is_no_hindrance(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(record_with()).encode())
    assert len(read_actprobe([tmp_path / "a.jsonl"]).episodes) == 1


@pytest.mark.parametrize("kind", ["folder", "loop", "pipe", "nothing"])
def test_only_files_are_logs(tmp_path, kind):
    path = tmp_path / "log/a.jsonl"
    path.parent.mkdir()
    {
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to(path),
        "pipe": lambda: os.mkfifo(path),
        "nothing": lambda: path.symlink_to(tmp_path / "nowhere"),
    }[kind]()
    for source in (path.parent, path) if kind != "folder" else (path.parent,):
        with pytest.raises(EpisodeDataError, match="is not a file"):
            import_log("", source, tmp_path / "run", ORIGIN)


def test_stray_files_beside_a_log_are_passed_by(tmp_path):
    path = write_lines(tmp_path / "log/a.jsonl", record_with())
    (path.parent / "._a.jsonl").write_bytes(b"\0\5\26\7")
    (path.parent / ".DS_Store").write_bytes(b"x")
    assert log_files(path.parent) == [path]


def test_what_stands_beside_a_run_stays(tmp_path):
    path = write_lines(tmp_path / "log/a.jsonl", record_with())
    for name in ("run.partial", ".run.mine.building"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("precious")
    before = {p.name for p in tmp_path.iterdir()}
    import_log("", path, tmp_path / "run", ORIGIN)
    assert {p.name for p in tmp_path.iterdir()} == before | {"run"}
    assert (tmp_path / "run.partial/mine.txt").read_text() == "precious"
    path.write_text("{")
    with pytest.raises(EpisodeDataError):
        import_log("", path, tmp_path / "new/deep/run", ORIGIN)
    assert {p.name for p in tmp_path.iterdir()} == before | {"run"}
