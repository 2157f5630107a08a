"""Foreign logs: what comes in is what was written, and what is broken is said in one sentence."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import LOG_COLUMNS, LOG_NAMES, log_arrays, make_log_run, write_json_log

from failsight.core.errors import EpisodeDataError, StorageError, UnknownNameError
from failsight.core.specs import Access, SignalColumn
from failsight.episodes.formats.actprobe import log_files, read_actprobe
from failsight.episodes.logged import Log, LoggedEpisode, LogOrigin, store_log
from failsight.episodes.run import Run
from failsight.labels.table import read_labels, type_counts
from failsight.predictors.dataset import build_sequences, signal_columns
from failsight.workflows.import_logs import import_log

ORIGIN = LogOrigin(policy="p", suite="s", horizon=40, rate_hz=4.0)


def episode(steps=5, hidden=None, **changes):
    fields = {"task": "a", "instruction": "do a", "seed": 0, "number": 0, "success": True}
    signals = np.arange(4.0 * steps, dtype=np.float32).reshape(steps, 4)
    return LoggedEpisode(**{**fields, "signals": signals, "hidden": hidden, **changes})


def write_npz(path, count=4, hidden=6):
    lengths = np.arange(3, 3 + count, dtype=np.int32)
    total = int(lengths.sum())
    rng = np.random.default_rng(0)
    np.savez(
        path,
        hidden=rng.standard_normal((total, hidden)).astype(np.float16),
        signals3=np.zeros((total, 3), np.float32),
        signals10=rng.random((total, 10)).astype(np.float32),
        length=lengths,
        success=np.arange(count) % 2 == 0,
        episode_id=np.arange(count),
        seed=np.arange(count) + 7,
        instruction=np.array(["do it"] * count),
        task_embedding=np.zeros(512, np.float32),
    )
    return path


def test_what_is_stored_is_read_back(tmp_path):
    run = make_log_run(tmp_path / "run", count=9)
    assert run.meta.signals == LOG_COLUMNS
    for stored, (task, seed, failed, signals, hidden) in zip(run.read(), log_arrays(count=9), strict=True):
        assert (stored.meta.task, stored.meta.seed) == (task, seed)
        assert (stored.meta.outcome == "failure") == failed
        assert (stored.signals == signals).all()
        assert (stored.hidden == hidden).all()
        steps = stored.steps()
        assert (steps[3].signals == signals[3]).all()
        assert (steps[3].output.hidden == hidden[3]).all()
        assert all(s.replan for s in steps)


def test_the_run_is_in_lerobot_layout_and_labelled(tmp_path):
    run = make_log_run(tmp_path / "run", count=9)
    info = json.loads((run.root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["features"]["signal"]["names"] == list(LOG_NAMES)
    assert info["total_episodes"] == 9
    assert len(pd.read_parquet(run.root / "data")) == info["total_frames"]
    labels = read_labels(run)
    assert set(type_counts(run, labels).columns) == {"success", "failure", "unscored"}
    sequences = build_sequences(run, labels)
    assert [s.failed for s in sequences] == [not labels[s.ticket].success for s in sequences]
    assert signal_columns(run) == LOG_COLUMNS


def test_missing_values_stay_missing(tmp_path):
    signals = np.ones((4, 4), np.float32)
    signals[1, 2] = np.nan
    store_log(Log(columns=LOG_COLUMNS, episodes=(episode(signals=signals),)), tmp_path / "run", ORIGIN)
    assert np.isnan(next(Run(tmp_path / "run").read()).signals[1, 2])


def test_json_lines_and_npz_are_read(tmp_path):
    folder = write_json_log(tmp_path / "log", count=9)
    log = read_actprobe(log_files(folder))
    assert [c.name for c in log.columns] == list(LOG_NAMES)
    assert log.columns[2] == SignalColumn(name="eef_z", unit="m", access=Access.PROPRIOCEPTION)
    assert len(log.episodes) == 9
    assert {e.task for e in log.episodes} == {"task_0", "task_1", "task_2"}
    text = (folder / "task_0.jsonl").read_bytes()
    (folder / "task_0.jsonl").unlink()
    with gzip.open(folder / "task_0.jsonl.gz", "wb") as file:
        file.write(text)
    again = read_actprobe(log_files(folder))
    assert {e.task for e in again.episodes} == {"task_0", "task_1", "task_2"}
    packed = read_actprobe([write_npz(tmp_path / "Open.npz")])
    assert [len(e.signals) for e in packed.episodes] == [3, 4, 5, 6]
    assert packed.episodes[1].seed == 8
    assert packed.episodes[2].hidden.shape == (5, 6)


def broken(tmp_path, kind):
    folder = write_json_log(tmp_path / "log", count=9)
    path = folder / "task_1.jsonl"
    if kind == "cut":
        path.write_text(path.read_text()[:-40])
    elif kind == "gzip":
        with gzip.open(folder / "task_1.jsonl.gz", "wb") as file:
            file.write(path.read_bytes())
        whole = (folder / "task_1.jsonl.gz").read_bytes()
        (folder / "task_1.jsonl.gz").write_bytes(whole[:-20])
        path.unlink()
    elif kind == "key":
        path.write_text(path.read_text().replace('"chunk_mse"', '"chunk"', 1))
    elif kind == "length":
        record = json.loads(path.read_text().splitlines()[0])
        path.write_text(json.dumps({**record, "length": 99}) + "\n")
    elif kind == "columns":
        path.write_text(path.read_text().replace("eef_z", "height"))
    elif kind == "npz":
        (folder / "Open.npz").write_bytes(write_npz(tmp_path / "x.npz").read_bytes()[:200])
    elif kind == "empty":
        path.write_text("\n")
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", "task_1.jsonl:3 .*damaged or was cut off"),
        ("gzip", "task_1.jsonl.gz .*damaged or was cut off"),
        ("key", "task_1.jsonl has the signals chunk too"),
        ("length", "says 99 steps"),
        ("columns", "task_1.jsonl has the signals height too and lacks eef_z"),
        ("npz", "Open.npz .*damaged or was cut off"),
        ("empty", "task_1.jsonl holds no episode"),
    ],
)
def test_broken_files_are_named_and_leave_nothing(tmp_path, kind, message):
    folder = broken(tmp_path, kind)
    with pytest.raises(EpisodeDataError, match=message):
        import_log("", folder, tmp_path / "run", ORIGIN)
    assert {p.name for p in tmp_path.iterdir()} <= {"log", "x.npz"}


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        ((), "holds no episode"),
        ((episode(), episode(hidden=np.zeros((5, 3), np.float16))), r"differ in size between episodes \(3, None\)"),
        ((episode(signals=np.zeros((0, 4), np.float32)),), "empty or uneven"),
        ((episode(hidden=np.zeros((4, 3), np.float16)),), "empty or uneven"),
        ((episode(steps=50),), "more than the horizon 40"),
    ],
)
def test_uneven_logs_are_refused(tmp_path, episodes, message):
    with pytest.raises(EpisodeDataError, match=message):
        store_log(Log(columns=LOG_COLUMNS, episodes=episodes), tmp_path / "run", ORIGIN)
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_overwritten(tmp_path):
    log = Log(columns=LOG_COLUMNS, episodes=(episode(),))
    store_log(log, tmp_path / "run", replace(ORIGIN, horizon=None))
    assert Run(tmp_path / "run").episodes[0].horizon == 5
    with pytest.raises(StorageError, match="exists already"):
        store_log(log, tmp_path / "run", ORIGIN)
    with pytest.raises(UnknownNameError, match="actprobe"):
        import_log("actprob", tmp_path, tmp_path / "other", ORIGIN)


def groot_episode(number, steps=4, **changes):
    """As ActProbe's GR00T logs are released: no task text, nested vectors, signals from the second or third step on."""
    rows = []
    for t in range(steps):
        row = {"t": t, "is_replan": True, "action_norm": 0.1 * t, "gripper_oscillation": t % 2}
        if t >= 1:
            row["chunk_mse"] = 0.01 * t
        if t >= 2:
            row["action_jerk"] = 0.02 * t
        position, fingers = [0.3 * t, 0.4 * t, 1.0 - 0.1 * t * t], [0.04 - 0.01 * t, -0.04]
        row["physics_info"] = {"state.end_effector_position_absolute": position, "state.gripper_qpos": fingers}
        rows.append(row)
    return {"episode_id": number, "env_idx": 3, "success": number % 2 == 0, "length": steps, "steps": rows, **changes}


def write_lines(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_logs_of_groot_are_read_with_the_columns_of_the_release(tmp_path):
    path = write_lines(tmp_path / "log/OpenDrawer_Env.jsonl", groot_episode(0), groot_episode(1, steps=1))
    log = read_actprobe(log_files(path.parent))
    names = [column.name for column in log.columns]
    assert names == [
        *("is_replan", "action_norm", "gripper_oscillation", "chunk_mse", "action_jerk"),
        *("eef_z", "eef_z_vel", "eef_speed_3d", "gripper_qpos_mean", "gripper_qpos_vel"),
    ]
    first, second = log.episodes
    assert (first.task, first.instruction, first.success) == ("OpenDrawer_Env", "OpenDrawer_Env", True)
    values = dict(zip(names, first.signals.T, strict=True))
    nan = np.nan
    expected = {
        "is_replan": [1, 1, 1, 1],
        "gripper_oscillation": [0, 1, 0, 1],
        "chunk_mse": [nan, 0.01, 0.02, 0.03],
        "action_jerk": [nan, nan, 0.04, 0.06],
        "eef_z": [1.0, 0.9, 0.6, 0.1],
        "eef_z_vel": [nan, 0.1, 0.3, 0.5],
        "eef_speed_3d": [nan, *np.hypot(0.5, [0.1, 0.3, 0.5])],
        "gripper_qpos_mean": [0.0, -0.005, -0.01, -0.015],
        "gripper_qpos_vel": [nan, 0.005, 0.005, 0.005],
    }
    for name, column in expected.items():
        np.testing.assert_allclose(values[name], column, rtol=1e-5, atol=1e-7, err_msg=name)
    assert np.isnan(second.signals[0, names.index("chunk_mse")])


def test_nested_signals_are_named_by_their_path(tmp_path):
    steps = [{"t": 0, "arm": {"torque": [1.0, 2.0], "hot": False}}, {"t": 1, "arm": {"torque": [3.0, 4.0]}, "late": 7}]
    record = {"episode_id": 0, "success": True, "steps": steps}
    log = read_actprobe([write_lines(tmp_path / "a.jsonl", record)])
    assert [c.name for c in log.columns] == ["arm.torque.0", "arm.torque.1", "arm.hot", "late"]
    np.testing.assert_array_equal(log.episodes[0].signals, [[1, 2, 0, np.nan], [3, 4, np.nan, 7]])
