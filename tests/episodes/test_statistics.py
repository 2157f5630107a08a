"""Statistics as LeRobot keeps them, on numbers worked out by hand."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from test_store import make_run

from failsight.episodes.statistics import PictureLevels, vector_statistics


def test_vectors_by_hand():
    """0, 1, 2, 3, 4 and a dimension with one Infinity and one NaN among 1, 3, 5."""
    values = np.array([[0, 1], [1, np.inf], [2, 3], [3, np.nan], [4, 5]], np.float64)
    found = vector_statistics(values)
    assert found["count"] == [5]
    assert (found["min"], found["max"], found["mean"]) == ([0, 1], [4, 5], [2, 3])
    assert found["std"] == pytest.approx([2**0.5, (8 / 3) ** 0.5])
    assert found["q50"] == [2, 3]
    assert found["q10"] == pytest.approx([0.4, 1.4])
    assert found["q99"] == pytest.approx([3.96, 4.96])


def test_a_dimension_without_a_finite_value_is_nan():
    found = vector_statistics(np.array([[np.nan, 7], [np.inf, 7]]))
    assert np.isnan(found["mean"][0])
    assert (found["mean"][1], found["std"][1], found["q01"][1]) == (7, 0, 7)


def test_means_of_large_numbers_are_exact():
    values = np.full((1000, 1), 16777217.0)
    assert vector_statistics(values)["mean"] == [16777217.0], "float32 cannot hold it"


def test_pictures_by_hand():
    """Two frames of two pixels: red 0, 255, 255, 255; green all 51; blue 0, 0, 0, 255."""
    levels = PictureLevels()
    levels.add(np.array([[[0, 51, 0], [255, 51, 0]]], np.uint8))
    levels.add(np.array([[[255, 51, 0], [255, 51, 255]]], np.uint8))
    found = levels.statistics()
    assert found["count"] == [2]
    assert found["mean"] == [[[0.75]], [[0.2]], [[0.25]]]
    assert np.ravel(found["std"]) == pytest.approx([0.1875**0.5, 0, 0.1875**0.5], abs=1e-9)
    assert np.ravel(found["min"]).tolist() == [0, 0.2, 0]
    assert np.ravel(found["max"]).tolist() == [1, 0.2, 1]
    assert np.ravel(found["q50"]).tolist() == [1, 0.2, 0]
    assert np.ravel(found["q01"]).tolist() == [0, 0.2, 0]


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
