"""LeRobot's split, merge and delete on a run of ours keep its statistics; run by lerobot.sh in LeRobot's environment."""

import sys
from pathlib import Path

import numpy as np
from lerobot.datasets.compute_stats import get_feature_stats
from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets, split_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset

NAMES = ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")
CAMERA = "observation.images.agent"


def same(one, two, tolerance=1e-6):
    """Statistics of every feature, quantiles left out: LeRobot joins those of episodes by their weighted mean."""
    assert one.keys() == two.keys(), one.keys() ^ two.keys()
    for feature in one:
        for name in ("mean", "std", "count"):
            assert np.allclose(one[feature][name], two[feature][name], atol=tolerance), (feature, name)


def check_against_lerobot(data):
    """Our numbers beside LeRobot's own: equal for vectors, close for pictures (we look at one frame in ten)."""
    rows = data.hf_dataset.with_format("numpy")
    for feature in ("action", "observation.state"):
        values = np.stack(rows[feature]).astype(np.float64)
        theirs = get_feature_stats(values, 0, keepdims=False)
        for name in ("min", "max", "mean", "std"):
            assert np.allclose(data.meta.stats[feature][name], theirs[name], atol=1e-6), (feature, name)
        for name in ("q01", "q10", "q50", "q90", "q99"):  # LeRobot's come from histograms and miss sparse tails
            exact = np.quantile(values, int(name[1:]) / 100, axis=0)
            assert np.allclose(data.meta.stats[feature][name], exact, atol=1e-6), (feature, name)
    pictures = np.stack([data[i][CAMERA].numpy() for i in range(len(data))]).astype(np.float64)
    theirs = get_feature_stats(pictures, (0, 2, 3), keepdims=True)
    for name in NAMES:
        assert data.meta.stats[CAMERA][name].shape == (3, 1, 1)
        assert np.allclose(data.meta.stats[CAMERA][name], theirs[name][0], atol=0.03), name


def main():
    root, out = Path(sys.argv[1]), Path(sys.argv[2])
    data = LeRobotDataset("local/run", root=root, video_backend="pyav")
    check_against_lerobot(data)
    parts = split_dataset(data, {"one": [0, 1], "two": [2, 3]}, output_dir=out / "split")
    merged = merge_datasets(list(parts.values()), output_repo_id="local/merged", output_dir=out / "merged")
    assert merged.num_frames == data.num_frames
    moved = {"task_index", "index", "episode_index"}
    same(*({k: v for k, v in d.meta.stats.items() if k not in moved} for d in (merged, data)))
    less = delete_episodes(data, [1], output_dir=out / "deleted", repo_id="local/less")
    assert less.num_episodes == 3
    assert less.meta.stats.keys() == data.meta.stats.keys()
    assert less[0][CAMERA].shape == data[0][CAMERA].shape
    print(f"split, merge and delete kept the statistics of {len(data.meta.stats)} features")


if __name__ == "__main__":
    main()
