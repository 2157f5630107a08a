"""A run at a rate that is not whole says so, and is read so."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq

from failsight.core.types import EpisodeKey
from failsight.episodes.formats.lerobot import LeRobotFolder
from failsight.episodes.meta import RunMeta
from failsight.episodes.seal import seal
from failsight.runtime.bench import Bench
from failsight.runtime.collect import prepare, record_episode, tensor_shapes
from failsight.testing.fakes import PointPolicy, PointSim


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
