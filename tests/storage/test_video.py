"""Rates as they are: frame k of a video stands at k / rate seconds, whole or not."""

from pathlib import Path

import numpy as np
import pytest

from failsight.storage.pictures import Video
from failsight.storage.video import VideoWriter, frames_per_second


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
