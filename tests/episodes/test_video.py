"""Rates as they are: frame k of a video stands at k / rate seconds, whole or not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from failsight.core.types import EpisodeKey
from failsight.episodes.formats.lerobot import LeRobotFolder
from failsight.episodes.meta import RunMeta
from failsight.episodes.pictures import Video
from failsight.episodes.seal import seal
from failsight.episodes.video import VideoWriter, frames_per_second
from failsight.runtime.bench import Bench
from failsight.runtime.collect import prepare, record_episode, tensor_shapes
from failsight.testing.fakes import PointPolicy, PointSim


@pytest.mark.parametrize("rate_hz", [20.0, 2.5, 1.5, 12.5, 0.4, 29.97, 80.0])
def test_step_100_stands_at_its_own_time(tmp_path: Path, rate_hz):
    writer = VideoWriter(tmp_path / "a.mp4", 32, 32, frames_per_second(rate_hz))
    for k in range(105):
        writer.add(np.full((32, 32, 3), 2 * k, np.uint8))
    writer.close()
    picture = Video(tmp_path / "a.mp4").at(np.array([100 / rate_hz]), 1e-3, (32, 32), "here")
    assert picture[0].mean() == pytest.approx(200, abs=3)


def test_a_rate_is_written_as_it_is():
    assert [frames_per_second(rate) for rate in (20.0, 2.5, 29.97, 0.0)] == [20, 2.5, 29.97, 1]
    assert isinstance(frames_per_second(20.0), int)


def test_a_run_at_two_and_a_half_hertz_says_so_and_is_read_so(tmp_path):
    plan = (EpisodeKey(seed=1, task="home", episode=0),)
    bench = Bench(PointSim(), PointPolicy())
    spec = replace(bench.sim.action_spec, rate_hz=2.5)
    bench.sim.action_spec = bench.policy.action_spec = spec
    meta = RunMeta(
        action_spec=spec,
        observation_spec=bench.policy.observation_spec,
        policy="point",
        sim="point",
        plan=plan,
        shapes=tensor_shapes(bench.policy, bench.sim, plan[0]),
        video_share=1.0,
    )
    root = tmp_path / "run"
    for ticket in prepare(root, meta, resume=False):
        record_episode(root, 1.0, bench, ticket)
    seal(root)
    times = pq.read_table(root / "data/chunk-000/file-000.parquet").column("timestamp").to_numpy()
    np.testing.assert_allclose(times, 0.4 * np.arange(len(times)), atol=1e-5)
    assert json.loads((root / "meta/info.json").read_text())["fps"] == 2.5
    folder = LeRobotFolder(root)
    assert folder.specs()[0].rate_hz == 2.5
    assert len(next(folder.episodes()).images) == 1
