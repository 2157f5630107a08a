"""Own logs in any usual form: the same episodes, written five ways, come in as the same run."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.episodes import from_arrays
from failsight.episodes.formats.fields import read_map
from failsight.episodes.formats.format import ReadOptions
from failsight.episodes.logged import LogOrigin
from failsight.episodes.run import Run
from failsight.labels.table import read_labels
from failsight.workflows.import_logs import import_log, read_log

MAP = "success=ok,episode=ep,task=job,step=tick,signals=entropy+var,hidden=h"
ORIGIN = LogOrigin(policy="p", suite="s")


def episodes(count=6):
    """(task, number, success, entropy (T,), var (T,), h (T, 3))."""
    rng = np.random.default_rng(0)
    for i in range(count):
        steps = 3 + i
        yield (
            "open" if i % 2 else "close",
            i // 2,
            i % 3 > 0,
            rng.random(steps),
            rng.random(steps),
            rng.random((steps, 3)),
        )


def rows():
    for job, ep, ok, entropy, var, h in episodes():
        for t in range(len(entropy)):
            yield {"job": job, "ep": ep, "ok": ok, "tick": t, "entropy": entropy[t], "var": var[t], "h": h[t].tolist()}


def table():
    every = list(rows())
    return {name: [row[name] for row in every] for name in every[0]}


def write_csv(folder):
    with (folder / "log.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["job", "ep", "ok", "tick", "entropy", "var", "h_0", "h_1", "h_2", "remark"])
        for row in rows():
            numbers = [float(row["entropy"]), float(row["var"]), *row["h"]]
            writer.writerow([row["job"], row["ep"], row["ok"], row["tick"], *map(repr, numbers), "fine, so far"])


def write_json_rows(folder):
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))


def write_json_episodes(folder):
    with (folder / "log.jsonl").open("w") as file:
        for job, ep, ok, entropy, var, h in episodes():
            record = {"job": job, "ep": ep, "ok": ok, "entropy": entropy.tolist(), "var": var.tolist(), "h": h.tolist()}
            file.write(json.dumps(record) + "\n")


def write_parquet_rows(folder):
    pq.write_table(pa.table(table()), folder / "log.parquet")


def write_parquet_episodes(folder):
    names = ("job", "ep", "ok", "entropy", "var", "h")
    columns = {name: [e[i].tolist() if i > 2 else e[i] for e in episodes()] for i, name in enumerate(names)}
    pq.write_table(pa.table(columns), folder / "log.parquet")


def write_npz_rows(folder):
    np.savez(folder / "log.npz", **{name: np.array(values) for name, values in table().items()})


def write_npz_episodes(folder):
    for i, (job, ep, ok, entropy, var, h) in enumerate(episodes()):
        np.savez(folder / f"{i}.npz", job=job, ep=ep, ok=ok, entropy=entropy, var=var, h=h)


def write_hdf5_groups(folder):
    with h5py.File(folder / "log.h5", "w") as file:
        for i, (job, ep, ok, entropy, var, h) in enumerate(episodes()):
            group = file.create_group(f"data/demo_{i}")
            group.attrs["job"], group.attrs["ep"], group["ok"] = job, ep, [0] * (len(h) - 1) + [int(ok)]
            group["entropy"], group["var"], group["obs/h"] = entropy, var, h


def write_hdf5_rows(folder):
    with h5py.File(folder / "log.h5", "w") as file:
        for name, values in table().items():
            file[name] = values


WRITERS = {
    write_csv: MAP,
    write_json_rows: MAP,
    write_json_episodes: MAP.replace("step=tick,", ""),
    write_parquet_rows: MAP,
    write_parquet_episodes: MAP.replace("step=tick,", ""),
    write_npz_rows: MAP,
    write_npz_episodes: MAP.replace("step=tick,", ""),
    write_hdf5_groups: MAP.replace("step=tick,", "").replace("hidden=h", "hidden=obs/h"),
    write_hdf5_rows: MAP,
}


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_the_same_episodes_come_in_whatever_they_were_written_as(tmp_path, write):
    (tmp_path / "log").mkdir()
    write(tmp_path / "log")
    run = import_log(
        "", tmp_path / "log", tmp_path / "run", ORIGIN, options=ReadOptions(fields=read_map(WRITERS[write]))
    )
    stored = {(e.meta.task, e.meta.episode): e for e in run.read()}
    assert [column.name for column in run.meta.signals] == ["entropy", "var"]
    assert len(stored) == 6
    for job, ep, ok, entropy, var, h in episodes():
        one = stored[job, ep]
        assert one.meta.outcome == ("success" if ok else "failure")
        np.testing.assert_array_equal(one.signals, np.stack([entropy, var], 1).astype(np.float32))
        np.testing.assert_array_equal(one.hidden, h.astype(np.float16))


def test_without_a_map_names_that_say_what_they_are_are_enough(tmp_path):
    (tmp_path / "log.csv").write_text("episode,success,entropy,reward,note\n1,True,0.5,0,a\n1,True,,1,b\n2,0,1.5,0,c\n")
    log, found = read_log(tmp_path / "log.csv")
    assert found == "1 CSV file with episode, success, entropy, reward, note, 2 episodes, 1 failed, 1 signals"
    assert [c.name for c in log.columns] == ["entropy"]  # a reward tells the outcome
    assert log.notes[:2] == (
        "fields taken: success = success, episode = episode, signals = entropy",
        "not read, for they are no numbers: note",
    )
    assert log.notes[2] == "values that are missing or not finite: entropy 1"
    assert np.isnan(log.episodes[0].signals[1, 0])
    assert [(e.number, e.task, e.success) for e in log.episodes] == [(1, "log", True), (2, "log", False)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "nothing is called success.*--map success=NAME.*There are: a, b"),
        ("success,e\n1,2\n", "no episode|rows"),
        ("success,episode\n1,2\n", "no signals and no action"),
        ("success,episode,x\n1,1,2\n0,1,3\n0,1,3\n", "success changes within the episode"),
        ("success,episode,x\n1,1,2\n1,2,3\n1,1,3\n", "do not stand together.*--map step="),
        ("success,episode,step,x\n1,1,0,2\n1,1,0,3\n", "step does not increase"),
        ("success,episode,x\nmaybe,1,2\n", "success is 'maybe'"),
        ("success,episode,x\n1,1,2\n1,,3\n", "row 2: episode is empty"),
        ("success,episode,x\n1,1,2,9\n", "cannot be read"),
        ("success,success,x\n1,1,2\n", "occurs twice"),
        ("", "has no header"),
    ],
)
def test_what_is_not_clear_is_said_with_its_place(tmp_path, text, message):
    (tmp_path / "log.csv").write_text(text)
    if "no episode|" in message:
        assert len(read_log(tmp_path / "log.csv").log.episodes) == 1  # one file, one episode
        return
    with pytest.raises(EpisodeDataError, match=message):
        read_log(tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("success", "not role=name"),
        ("outcome=ok", "roles are success, episode"),
        ("success=a,success=b", "occurs twice"),
        ("success=a+b", "takes one name"),
        ("success=a,task=a", "occurs twice"),
        ("signals=a+", "not role=name"),
    ],
)
def test_a_map_that_means_nothing_is_refused(text, message):
    with pytest.raises(FailsightError, match=message):
        read_map(text)


def test_whole_numbers_may_be_written_as_pandas_writes_them(tmp_path):
    (tmp_path / "log.csv").write_text("episode,success,x\n7.0,1.0,2\n3.0,0.0,3\n")
    log = read_log(tmp_path / "log.csv").log
    assert [(e.number, e.success) for e in log.episodes] == [(7, True), (3, False)]
    (tmp_path / "log.csv").write_text("episode,success,x\n7.0,0.5,2\n")
    with pytest.raises(EpisodeDataError, match=r"success is '0.5'"):
        read_log(tmp_path / "log.csv")


def test_numbered_columns_are_one_vector_and_gaps_are_not():
    from failsight.episodes.formats.fields import expand

    assert expand("h", ["h_10", *(f"h_{i}" for i in range(10)), "hx"], "f")[-1] == "h_10"
    assert expand("h", ["h[1]", "h[2]"], "f") == ["h[1]", "h[2]"]
    with pytest.raises(EpisodeDataError, match="nothing is called 'h'"):
        expand("h", ["h_0", "h_2"], "f")


def test_actions_and_states_are_stored_as_those_of_our_own_runs(tmp_path):
    rng = np.random.default_rng(1)
    for i in range(4):
        state, action = rng.random((5, 4)), rng.random((5, 4))
        chunk = np.repeat(action[:, None], 3, axis=1)
        chunk[2] = chunk[1]  # the second chunk stays in force for a step
        np.savez(tmp_path / f"{i}.npz", success=i % 2, state=state, action=action, chunk=chunk, signals=rng.random(5))
    run = import_log("", tmp_path, tmp_path / "run", ORIGIN)
    episode = next(run.read())
    assert episode.states.shape == episode.actions.shape == (5, 4)
    assert episode.chunks.shape == (5, 3, 4)
    assert episode.cursors.tolist() == [0, 0, 1, 0, 0]
    assert episode.replans.tolist() == [True, True, False, True, True]
    assert [step.signals[0] for step in episode.steps()] == episode.signals[:, 0].tolist()
    names = [column.name for column in run.meta.signals]
    assert names[0] == "signals"
    norm = names.index("action_magnitude")  # ours, beside the log's own: the length of the action vector
    np.testing.assert_allclose(episode.signals[:, norm], np.linalg.norm(episode.chunks[:, 0], axis=1), rtol=1e-5)


def test_a_log_of_actions_alone_has_no_signals_of_its_own(tmp_path):
    for i in range(2):
        np.savez(tmp_path / f"{i}.npz", success=True, state=np.ones((5, 2)), action=np.ones((5, 3)) * i)
    run = import_log("", tmp_path, tmp_path / "run", ORIGIN)
    assert run.meta.signals == ()
    assert "exactly" not in run.meta.note
    assert run.meta.action_spec.names == ("action.0", "action.1", "action.2")
    assert len(next(run.read()).steps()) == 5


def test_arrays_in_memory_are_a_log():
    given = [
        {
            "success": 1,
            "signals": {"a": [1.0, np.nan], "b": [3, 4]},
            "hidden": np.ones((2, 3)),
            "action": np.ones((2, 2)),
        },
        {"success": "no", "signals": {"a": [1.0], "b": [3]}, "hidden": np.ones((1, 3)), "action": np.ones((1, 2))},
    ]
    log = from_arrays(given)
    assert [c.name for c in log.columns] == ["a", "b"]
    assert [(e.task, e.number, e.success) for e in log.episodes] == [("task", 0, True), ("task", 1, False)]
    np.testing.assert_array_equal(log.episodes[0].signals, [[1, 3], [np.nan, 4]])
    for change, message in (
        ({"hidden": np.ones((3, 3))}, "episode 1: steps differ in number"),
        ({"success": 0.5}, "episode 1: success: success is 0.5"),
        ({"signals": {"a": [1.0]}}, "episode 1 has no b"),
        ({"extra": 1}, "which the first one has not"),
        ({"action": [[np.inf, 0]]}, "expected finite numbers"),
    ):
        with pytest.raises(EpisodeDataError, match=message):
            from_arrays([given[0], {**given[1], **change}])
    for nothing in ([], [{"success": True}], [{"success": True, "signal": [1.0]}]):
        with pytest.raises(EpisodeDataError):
            from_arrays(nothing)


def test_from_arrays_is_imported_without_anything_heavy():
    code = "import sys, failsight.episodes; print({'numpy', 'pandas', 'pyarrow', 'h5py', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_example_makes_a_run(tmp_path):
    example = Path(__file__).parents[2] / "examples/own_logs.py"
    subprocess.run([sys.executable, example, tmp_path / "run"], check=True)
    assert len(read_labels(Run(tmp_path / "run"))) == 60


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_rollouts_of_lerobot(tmp_path, version):
    names = {"action": {"names": ["dx", "dy"]}, "observation.state": {"names": {"motors": ["x_m", "y_m", "z_m"]}}}
    (tmp_path / "log/meta").mkdir(parents=True)
    info = {"codebase_version": version, "fps": 10, "features": names}
    (tmp_path / "log/meta/info.json").write_text(json.dumps(info))
    if version == "v3.0":
        tasks = pd.DataFrame({"task_index": [0, 1]}, index=pd.Index(["open", "close"], name="task"))
        tasks.to_parquet(tmp_path / "log/meta/tasks.parquet")
    else:
        lines = [{"task_index": 0, "task": "open"}, {"task_index": 1, "task": "close"}]
        (tmp_path / "log/meta/tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = []
    for e in range(4):
        for t in range(3):
            row = {"episode_index": e, "frame_index": t, "task_index": e % 2, "next.success": t == 2 and e != 1}
            rows.append({**row, "action": [0.1 * t, 1.0], "observation.state": [float(e), float(t), 0.0]})
    parts = [rows] if version == "v3.0" else [rows[3 * e : 3 * e + 3] for e in range(4)]
    for i, part in enumerate(parts):
        place = tmp_path / f"log/data/chunk-000/file-{i:03d}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(part), place)
    log, found = read_log(tmp_path / "log")
    assert found == f"a LeRobot data set of version {version}, 4 episodes, 1 failed, 2 actions, 3 states"
    assert [(e.task, e.instruction, e.number, e.success) for e in log.episodes] == [
        ("open", "open", 0, True),
        ("close", "close", 1, False),
        ("open", "open", 2, True),
        ("close", "close", 3, True),
    ]
    assert ([d.name for d in log.actions], log.states) == (["dx", "dy"], ("x_m", "y_m", "z_m"))
    np.testing.assert_allclose(log.episodes[2].states, [[2, 0, 0], [2, 1, 0], [2, 2, 0]])
    assert "--rate-hz 10" in log.notes[-1]


def test_what_is_a_run_already_or_has_no_outcome_is_said(tmp_path):
    np.savez(tmp_path / "0.npz", success=True, state=np.ones((5, 2)), action=np.ones((5, 3)))
    import_log("", tmp_path / "0.npz", tmp_path / "run", ORIGIN)
    with pytest.raises(EpisodeDataError, match=r"a run of failsight already. Next: failsight fit"):
        read_log(tmp_path / "run")
    (tmp_path / "run/meta/failsight/run.json").unlink()
    assert len(read_log(tmp_path / "run").log.episodes) == 1
    path = tmp_path / "run/data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["next.success"]), path)
    with pytest.raises(EpisodeDataError, match=r"no next.success.*--map success=NAME; there are"):
        read_log(tmp_path / "run")
