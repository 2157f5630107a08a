"""Statistics as LeRobot keeps them, on numbers worked out by hand."""

import numpy as np
import pytest

from failsight.storage.statistics import PictureLevels, vector_statistics


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
