import errno
import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from failsight.core.errors import EpisodeDataError, FailsightError, StorageError
from failsight.core.types import EpisodeKey, Outcome, Perturbation
from failsight.episodes import meta as meta_module
from failsight.episodes.meta import RunMeta
from failsight.episodes.recorder import EpisodeRecorder, committed_tickets, episode_folder
from failsight.episodes.run import Run
from failsight.episodes.seal import seal
from failsight.runtime.bench import Bench
from failsight.runtime.collect import prepare, record_episode, tensor_shapes
from failsight.testing.fakes import PointPolicy, PointSim


def make_meta(episodes=3, video=0.0, policy=None):
    bench = Bench(PointSim(), policy or PointPolicy())
    plan = tuple(
        EpisodeKey(seed=1, task="home", episode=i, perturbations=Perturbation.parse("wind:2" if i % 2 else "none"))
        for i in range(episodes)
    )
    meta = RunMeta(
        action_spec=bench.policy.action_spec,
        observation_spec=bench.policy.observation_spec,
        policy="point",
        sim="point",
        plan=plan,
        shapes=tensor_shapes(bench.policy, bench.sim, plan[0]),
        video_share=video,
    )
    return bench, meta


def make_run(root, **options):
    bench, meta = make_meta(**options)
    for ticket in prepare(root, meta, resume=False):
        record_episode(root, meta.video_share, bench, ticket)
    seal(root)
    return Run(root)


def test_a_run_round_trips(tmp_path):
    run = make_run(tmp_path / "run")
    episodes = list(run.read())
    assert [e.meta.outcome for e in episodes] == [Outcome.SUCCESS] * 3
    first = episodes[0]
    assert first.samples.shape == (first.meta.length, 8, 5, 4)
    assert first.samples.dtype == np.float16
    assert first.chunks.shape[1:] == (5, 4)
    assert first.events[-1].kind == "grasp"
    assert first.replans[0]
    assert first.meta.key == run.meta.plan[0]
    step = first.steps()[1]
    assert step.output is first.steps()[1].output or step.cursor == 1
    assert np.array_equal(step.action, first.actions[1])


def test_reading_one_episode_out_of_order(tmp_path):
    run = make_run(tmp_path / "run", episodes=5)
    (one,) = run.read([3])
    assert np.array_equal(one.states, list(run.read())[3].states)
    with pytest.raises(EpisodeDataError, match="no episode 9"):
        list(run.read([9]))


def test_the_layout_is_lerobot_v3(tmp_path):
    """The facts other tools rely on: see docs/format.md."""
    run = make_run(tmp_path / "run", video=1.0)
    info = json.loads((run.root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["splits"]) == (3, {"train": "0:3"})
    table = pq.read_table(run.root / "data/chunk-000/file-000.parquet")
    for name, feature in info["features"].items():
        if feature["dtype"] == "video":
            assert name not in table.column_names
        else:
            assert name in table.column_names
            assert len(feature["shape"]) == 1, "tensors are flattened: split and merge of other tools crash on more"
    assert table.column("index").to_pylist() == list(range(table.num_rows))
    assert table.column("timestamp").to_pylist()[1] == pytest.approx(1 / 20)
    tasks = pd.read_parquet(run.root / "meta/tasks.parquet")
    assert tasks.index.name == "task"
    assert tasks.columns.tolist() == ["task_index"]
    episodes = pd.read_parquet(run.root / "meta/episodes/chunk-000/file-000.parquet")
    assert episodes["dataset_to_index"].iloc[-1] == table.num_rows == info["total_frames"]
    row = episodes.iloc[1]
    key = "observation.images.agent"
    chunk, file = row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]
    path = run.root / info["video_path"].format(video_key=key, chunk_index=int(chunk), file_index=int(file))
    from videos import read_video

    assert sum(1 for _ in read_video(path)) == row["length"]
    stats = json.loads((run.root / "meta/stats.json").read_text())
    assert len(stats["action"]["q99"]) == 4


def test_a_partly_filmed_run_declares_no_video_feature(tmp_path):
    run = make_run(tmp_path / "run", episodes=6, video=0.5)
    info = json.loads((run.root / "meta/info.json").read_text())
    filmed = [m.ticket for m in run.episodes if m.video]
    assert 0 < len(filmed) < 6
    assert not any(f["dtype"] == "video" for f in info["features"].values())
    assert run.video(filmed[0], "agent") is not None


def test_dictionary_encoding_is_off_and_row_groups_are_small(tmp_path):
    run = make_run(tmp_path / "run")
    file = pq.ParquetFile(run.root / "data/chunk-000/file-000.parquet")
    group = file.metadata.row_group(0)
    assert group.num_rows <= 100
    for i in range(group.num_columns):
        assert "RLE_DICTIONARY" not in group.column(i).encodings


def test_unfinished_and_foreign_folders_are_explained(tmp_path):
    with pytest.raises(EpisodeDataError, match="not a failsight run"):
        Run(tmp_path)
    bench, meta = make_meta()
    tickets = prepare(tmp_path / "run", meta, resume=False)
    record_episode(tmp_path / "run", 0.0, bench, tickets[0])
    with pytest.raises(EpisodeDataError, match="not finished"):
        Run(tmp_path / "run")
    with pytest.raises(EpisodeDataError, match="1 of 3 episodes"):
        seal(tmp_path / "run")


def test_resume_refuses_another_plan_and_overwriting(tmp_path):
    _, meta = make_meta()
    prepare(tmp_path / "run", meta, resume=False)
    with pytest.raises(FailsightError, match="--resume"):
        prepare(tmp_path / "run", meta, resume=False)
    _, longer = make_meta(episodes=4)
    with pytest.raises(FailsightError, match="another plan"):
        prepare(tmp_path / "run", longer, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_text("")
    with pytest.raises(FailsightError, match="not empty"):
        prepare(tmp_path / "other", meta, resume=False)


def test_a_run_of_another_version_is_refused(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(meta_module, "FORMAT_VERSION", 2)
    with pytest.raises(EpisodeDataError, match="format version 1"):
        Run(run.root)


def test_damage_is_noticed(tmp_path):
    run = make_run(tmp_path / "run")
    data = run.root / "data/chunk-000/file-000.parquet"
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EpisodeDataError, match="Cannot read"):
        list(Run(run.root).read())
    data.write_bytes(whole)
    table = pq.read_table(data)
    pq.write_table(table.slice(0, table.num_rows - 5), data)
    with pytest.raises(EpisodeDataError, match="truncated"):
        list(Run(run.root).read())
    (run.root / "meta/failsight/run.json").write_text('{"format_version": 1')
    with pytest.raises(EpisodeDataError, match="damaged"):
        Run(run.root)


def test_nan_in_a_recording_is_an_errored_episode_not_a_failed_one(tmp_path):
    class NanSim(PointSim):
        def _state(self):
            state = super()._state()
            return np.full_like(state, np.nan) if self._step == 4 else state

    bench, meta = make_meta()
    bench = replace(bench, sim=NanSim())
    for ticket in prepare(tmp_path / "run", meta, resume=False):
        record_episode(tmp_path / "run", 0.0, bench, ticket)
    assert committed_tickets(tmp_path / "run") == [0, 1, 2]
    read = json.loads((episode_folder(tmp_path / "run", 1) / "episode.json").read_text())
    assert read["outcome"] == "errored"
    assert "not finite" in read["error"]


def test_an_unwritable_folder_is_one_sentence(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    _, meta = make_meta()
    with pytest.raises(StorageError, match=r"[Cc]hoose"):
        EpisodeRecorder(blocked, 0, 20)
    with pytest.raises((StorageError, FailsightError)):
        prepare(blocked / "run", meta, resume=False)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    bench, meta = make_meta()
    tickets = prepare(tmp_path / "run", meta, resume=False)
    record_episode(tmp_path / "run", 0.0, bench, tickets[0])

    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("failsight.episodes.recorder.os.replace", full)
        with pytest.raises(StorageError, match="No space left"):
            record_episode(tmp_path / "run", 0.0, bench, tickets[1])
    assert committed_tickets(tmp_path / "run") == [0]
    assert not list((tmp_path / "run/recording").glob("*.partial"))
    for ticket in prepare(tmp_path / "run", meta, resume=True):
        record_episode(tmp_path / "run", 0.0, bench, ticket)
    seal(tmp_path / "run")
    assert len(Run(tmp_path / "run").episodes) == 3


def test_a_filmed_run_has_statistics_of_every_feature_and_episode(tmp_path):
    run = make_run(tmp_path / "run", episodes=3, video=1.0)
    stats = json.loads((run.root / "meta/stats.json").read_text())
    camera = "observation.images.agent"
    assert np.shape(stats[camera]["mean"]) == (3, 1, 1)
    path = run.root / "meta/episodes/chunk-000/file-000.parquet"
    table = pd.read_parquet(path)
    assert all(np.shape(deep) == (3, 1, 1) for deep in pq.read_table(path)[f"stats/{camera}/q99"].to_pylist())
    episodes = list(run.read())
    for feature in ("action", "observation.state", "next.success", "timestamp", camera):
        for name in ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"):
            assert f"stats/{feature}/{name}" in table, (feature, name)
    for row, episode in zip(table.to_dict("records"), episodes, strict=True):
        assert row["stats/action/mean"] == pytest.approx(episode.actions.astype(np.float64).mean(0))
        assert row["stats/action/count"].tolist() == [episode.meta.length]
    total = np.concatenate([e.actions for e in episodes]).astype(np.float64)
    assert stats["action"]["q99"] == pytest.approx(np.quantile(total, 0.99, axis=0))
    weights = [row[f"stats/{camera}/count"][0] for row in table.to_dict("records")]
    means = [
        np.ravel(np.concatenate(np.concatenate(row[f"stats/{camera}/mean"])))[0] for row in table.to_dict("records")
    ]
    assert np.ravel(stats[camera]["mean"])[0] == pytest.approx(np.average(means, weights=weights))
