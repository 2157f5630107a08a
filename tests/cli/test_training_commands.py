"""The commands around training, end to end on a few recordings."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from failsight.cli.main import main
from failsight.core.errors import EpisodeDataError
from failsight.episodes.run import Run
from failsight.labels import failure_tokens as tokens
from failsight.labels.table import read_labels

SMALL = [
    "--fit.steps",
    "4",
    "--fit.batch",
    "4",
    "--fit.evaluate-every",
    "2",
    "--fit.save-every",
    "2",
    "--fit.warmup",
    "1",
    "--fit.tracker",
    "none",
    "--head.width",
    "32",
    "--head.depth",
    "1",
    "--chunk",
    "4",
    "--history.window",
    "3",
]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "drives"
    main(["demonstrate", str(folder), "--episodes", "6", "--seed", "3"])
    return folder


@pytest.mark.sim
def test_record_audit_train_drive_compare(recordings, tmp_path, capsys):
    main(["audit", str(recordings)])
    assert "scenarios" in capsys.readouterr().out
    out = tmp_path / "runs" / "ab"
    ab = ["--against", "tabletop-weak", "--sim", "navigation", "--trials", "1", "--out", str(out)]
    main(["train-policy", "--data", str(recordings), *ab, *SMALL])
    assert "Success of a minus b, same episodes" in " ".join(capsys.readouterr().out.split())
    for name in "ab":
        case = json.loads((out / name / "case.json").read_text())
        assert case["state"] == "finished"
        assert case["success"]["n"] == 8
        assert json.loads((out / name / "train_config.json").read_text())["chunk"] == 4
    main(["cases", str(tmp_path / "runs")])
    assert "scratch" in capsys.readouterr().out
    main(["evaluate", "policy", str(out / "a" / "best"), "--sim", "navigation", "--trials", "1"])
    assert "swapped instruction" in capsys.readouterr().out
    policy = ["--sim", "navigation", "--policy", str(out / "a" / "best"), "--tasks", "1box_vert_left"]
    main(["collect", "--out", str(tmp_path / "run"), *policy, "--trials", "5"])
    episodes = Run(tmp_path / "run").episodes
    assert len({meta.condition for meta in episodes}) > 1
    assert all(meta.scored for meta in episodes)
    assert {label.failure_type for label in read_labels(Run(tmp_path / "run")).values()} <= {
        None,
        "collision",
        "timeout",
    }


def test_the_wrong_number_of_actions_names_the_flag(recordings, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(
            [
                "train-policy",
                "--data",
                str(recordings),
                "--out",
                str(tmp_path / "x"),
                "--action-dims",
                "linear_z",
                *SMALL,
            ]
        )
    assert "--action-dims names linear_z" in capsys.readouterr().out


@pytest.mark.slow
def test_a_distributed_process_trains_and_its_checkpoint_is_one(recordings, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    out = tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    command += ["-m", "failsight.cli.train_process", "--data", str(recordings), "--out", str(out), *SMALL]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=200)
    case = json.loads((out / "case.json").read_text())
    assert case["state"] == "finished"
    steps = [json.loads(line)["step"] for line in (out / "losses.jsonl").read_text().splitlines()]
    assert steps == sorted(steps), "one process writes"


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """Four episodes of the weak policy with video."""
    out = tmp_path_factory.mktemp("runs") / "filmed"
    main(
        f"collect --out {out} --policy tabletop-weak --tasks pick-red-cube-left pick-green-cube-left --trials 2 "
        "--mix gripper_fault:5 --video 1".split()
    )
    return out


@pytest.mark.sim
def test_failure_tokens_are_made_set_checked_and_exchanged(filmed, tmp_path, capsys):
    run = Run(filmed)
    with pytest.raises(EpisodeDataError, match="has no failure tokens"):
        tokens.export(run, tmp_path / "out")
    main(["failure-tokens", "create", str(filmed)])
    main(["failure-tokens", "check", str(filmed)])
    main(["failure-tokens", "export", str(filmed), "--folder", str(tmp_path / "out")])
    files = sorted((tmp_path / "out").glob("*.npy"))
    assert len(files) == len(run.episodes)
    main(["failure-tokens", "set", str(filmed), "--episode", "1", "--first", "2", "--last", "4", "--value", "-1"])
    assert np.isnan(tokens.read_tokens(run)[1][2:5]).all()
    main(["failure-tokens", "import", str(filmed), "--folder", str(tmp_path / "out")])
    assert not np.isnan(tokens.read_tokens(run)[1]).any()
    np.save(files[0], np.zeros(3, np.int8))
    with pytest.raises(EpisodeDataError, match="its episode has"):
        tokens.import_tokens(run, tmp_path / "out")
    np.save(files[0], np.full(run.episodes[0].length, 7))
    with pytest.raises(EpisodeDataError, match="other than -1, 0 and 1"):
        tokens.import_tokens(run, tmp_path / "out")
    files[0].write_bytes(b"half")
    with pytest.raises(EpisodeDataError, match=r"not a whole \.npy"):
        tokens.import_tokens(run, tmp_path / "out")
    with pytest.raises(EpisodeDataError, match="does not lie inside"):
        tokens.set_range(run, 0, 0, 10**6, 1)
    good = next((m.ticket for m in run.episodes if m.outcome == "success"), None)
    if good is not None:
        tokens.set_range(run, good, 0, 1, 1)
        assert any("succeeded and still" in line for line in tokens.check(run))
        tokens.create(run, read_labels(run))


@pytest.mark.sim
def test_a_filmed_run_is_training_data_with_failure_labels(filmed, tmp_path, capsys):
    from failsight.workflows.data_sets import open_data

    data = open_data(filmed, tmp_path / "cache")
    run = Run(filmed)
    episode = next(iter(run.read([1])))
    row = data.episodes[1]
    assert row.length == episode.meta.length
    assert np.array_equal(data.actions[row.first : row.first + row.length], episode.actions)
    assert set(np.unique(np.asarray(data.fails))) <= {0.0, 1.0}
    out = tmp_path / "trained"
    main(["train-policy", "--data", str(filmed), "--out", str(out), "--failure-head", *SMALL])
    assert "checkpoint" in capsys.readouterr().out
    rows = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    assert all("failure" in row for row in rows if "total" in row)


@pytest.mark.sim
def test_a_plain_lerobot_folder_is_training_data(filmed, tmp_path):
    """The same run without anything of ours beside it."""
    import shutil

    from failsight.workflows.data_sets import open_data

    plain = tmp_path / "plain"
    shutil.copytree(filmed, plain)
    shutil.rmtree(plain / "meta" / "failsight")
    data = open_data(plain, tmp_path / "cache")
    ours = open_data(filmed, tmp_path / "cache2")
    assert np.array_equal(data.actions, ours.actions)
    assert np.array_equal(data.images["agent"], ours.images["agent"])
    assert data.fails is None
    info = json.loads((plain / "meta/info.json").read_text())
    (plain / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v2.1"}))
    with pytest.raises(EpisodeDataError, match="convert_dataset_v21_to_v30"):
        open_data(plain, tmp_path / "cache3")


@pytest.mark.sim
def test_videos_that_were_cut_short_are_noticed(filmed, tmp_path):
    import shutil

    from failsight.workflows.data_sets import open_data

    broken = tmp_path / "broken"
    shutil.copytree(filmed, broken)
    video = next(broken.rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 3])
    with pytest.raises(EpisodeDataError, match="is not what was sealed"):
        open_data(broken, tmp_path / "cache")
    (broken / "meta/failsight/checksums.json").unlink()
    with pytest.raises(EpisodeDataError, match=r"cut short|damaged"):
        open_data(broken, tmp_path / "cache")
