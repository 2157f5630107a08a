"""Scaling follows the data: rare values survive, rounding is not amplified, another unit changes nothing."""

import json

import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError
from failsight.policies.vla.normalise import Normaliser, state_normaliser, statistics

NOTHING = np.zeros((1, 0), np.float32)
PASS = np.zeros(1, bool)


def normaliser(values, scheme="q01q99", clip=True):
    table = statistics(np.asarray(values, np.float32).reshape(-1, 1), NOTHING)
    return Normaliser(scheme, json.loads(json.dumps(table))["action"], clip, table["epsilon"], PASS)


def there_and_back(made, value):
    return float(made.backward(made.forward(np.array([value])))[0])


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("value", [85.0, -37.3, 1e-4])
def test_a_command_given_in_one_frame_of_a_hundred_survives(noise, value):
    rng = np.random.default_rng(0)
    column = noise * abs(value) / 85 * rng.standard_normal(600)
    column[::120] = value
    made = normaliser(column)
    assert there_and_back(made, value) == pytest.approx(value, rel=1e-6)
    assert np.abs(made.forward(column[:, None])).max() == pytest.approx(1, abs=1e-6)


def test_an_unused_gripper_value_survives_exactly():
    column = np.zeros(600)
    column[30::120] = 85
    assert there_and_back(normaliser(column), 85.0) == 85.0


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e-9])
def test_what_never_moves_stays_what_it_is_under_every_scheme(value):
    for scheme in ("q01q99", "min-max", "mean-std"):
        made = normaliser(np.full(50, value), scheme)
        assert float(made.forward(np.array([np.float32(value)]))[0]) == pytest.approx(0, abs=1e-6)
        assert float(made.backward(np.array([0.0]))[0]) == pytest.approx(value, rel=1e-6)


def test_rounding_is_not_motion():
    rounding = np.float32(0.1) + np.spacing(np.float32(0.1)) * np.random.default_rng(0).integers(-2, 3, 200)
    assert np.abs(normaliser(rounding).forward(rounding[:, None])).max() < 1e-6


@pytest.mark.parametrize("scheme", ["q01q99", "min-max", "mean-std"])
@pytest.mark.parametrize("unit", [1e-7, 1e6])
def test_another_unit_changes_nothing(scheme, unit):
    column = np.random.default_rng(0).normal(3, 1, 400).astype(np.float32)
    plain = normaliser(column, scheme).forward(column[:, None])
    scaled = (column.astype(np.float64) * unit).astype(np.float32)
    np.testing.assert_allclose(normaliser(scaled, scheme).forward(scaled[:, None]), plain, atol=1e-5)


def test_common_values_are_scaled_by_quantiles_and_glitches_clipped():
    column = np.random.default_rng(0).normal(0, 1, 10_000)
    made = normaliser(column)
    q01, q99 = np.quantile(column, [0.01, 0.99])
    np.testing.assert_allclose(made.forward(np.array([[q01], [q99], [50.0]])).ravel(), [-1, 1, 1], atol=1e-5)


def test_states_are_bounded_by_what_training_saw():
    rng = np.random.default_rng(0)
    rare = np.zeros(20_000)
    rare[7] = 85
    states = np.stack([0.5 + 1e-4 * rng.standard_normal(20_000), rare, np.full(20_000, 3.0)], 1).astype(np.float32)
    table = statistics(np.zeros((20_000, 1)), states)["state"]
    made = state_normaliser(table, 3)
    assert np.abs(made.forward(states)).max() <= 20.0
    far = made.forward(np.array([0.9, 500.0, 7.0]))
    assert np.isfinite(far).all()
    assert abs(far[0]) < 15
    assert far[1] <= 40
    assert far[2] == 0, "an entry that never moved says nothing"


def test_older_statistics_keep_the_constants_they_were_trained_with():
    old = {"q01": [0.0], "q99": [0.0], "min": [0.0], "max": [85.0], "mean": [0.7], "std": [0.001]}
    made = Normaliser("q01q99", old, True, 1e-8, PASS)
    assert float(made.forward(np.array([85.0]))[0]) == 1
    assert there_and_back(made, 85.0) == 1, "wrong, and what the weights were trained on"
    assert float(state_normaliser(old, 1).forward(np.array([1.7]))[0]) == pytest.approx(50)


def test_means_and_deviations_of_a_million_rows_are_right():
    rng = np.random.default_rng(0)
    values = rng.normal([90.3, -1500], [1, 3], (1_000_000, 2)).astype(np.float32)
    table = statistics(values, values[:10])["action"]
    np.testing.assert_allclose(table["mean"], [90.3, -1500], atol=0.02)
    np.testing.assert_allclose(table["std"], [1, 3], rtol=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_and_what_is_not_there_has_no_statistics(bad):
    with pytest.raises(EpisodeDataError, match="state 1 is"):
        statistics(np.zeros((3, 1)), np.array([[0, 0], [0, bad], [0, 0]]))
    with pytest.raises(EpisodeDataError, match="no frames"):
        statistics(np.zeros((0, 1)), np.zeros((0, 1)))
