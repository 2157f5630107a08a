"""Thresholds for tasks nobody has labelled, with values worked out by hand."""

import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Risk, Task
from failsight.monitor.calibration import Calibration
from failsight.monitor.provisional import LeftOut, Provisional, fit_provisional, level_of, shift
from failsight.monitor.thresholds import Thresholds, fit_thresholds
from failsight.monitor.trigger import TriggerRule
from failsight.testing.checks import make_steps
from failsight.testing.fakes import make_monitor


def test_the_level_of_an_episode_by_hand():
    assert level_of(np.array([1.0, 3.0, 100.0]), 2) == 2.0
    assert level_of(np.array([1.0, np.nan, 100.0]), 2) == 1.0
    assert np.isnan(level_of(np.array([np.nan, 5.0]), 1))


def test_the_shift_by_hand():
    """Five episodes, median 2, usual 0.4: 5 / 8 * 1.6 = 1; ten: 10 / 13 * 1.6; the eleventh changes nothing."""
    five = [2.0, 2.0, 2.0, 9.0, -5.0]
    assert shift(five[:4], 0.4) == 0.0
    assert shift(five, 0.4) == pytest.approx(1.0)
    assert shift([*five, *five], 0.4) == pytest.approx(10 / 13 * 1.6)
    assert shift([*five, *five, 50.0], 0.4) == pytest.approx(10 / 13 * 1.6)
    assert shift([*five[:4], np.nan], 0.4) == 0.0


def left_out(values, level=0.0, usual=0.0):
    return LeftOut(values, [level] * 10, usual)


def test_the_calibration_is_corrected_as_the_use_is():
    """Task b runs 1.3 higher: 10 / 13 * 1.3 = 1 is taken off its successes before they calibrate."""
    low, high = list(np.linspace(0, 1, 10)), list(np.linspace(1, 2, 10))
    found = fit_provisional([left_out(low), left_out(high, level=1.3)], usual=0.0, steps=4, alpha=0.1)
    assert found.plain.threshold == pytest.approx(sorted(low + high)[18])  # rank ceil(21 * 0.9) = 19
    assert found.corrected.threshold == pytest.approx(sorted(low + low)[18])
    assert found.threshold([]) == found.plain.threshold
    assert found.threshold([1.3] * 10) == pytest.approx(found.corrected.threshold + 1.0)


def test_too_little_gives_none():
    values = list(np.linspace(0, 1, 20))
    assert fit_provisional([left_out(values)], 0.0, 4, 0.1) is None
    assert fit_provisional([left_out(values), left_out([])], 0.0, 4, 0.1) is None
    assert fit_provisional([left_out(values[:3]), left_out(values[:3])], 0.0, 4, 0.1) is None
    assert fit_provisional([left_out(values), left_out(values)], float("nan"), 4, 0.1) is None


def thresholds():
    calibration = Calibration(threshold=2.0, alpha=0.1, successes=30, alpha_upper=0.2)
    new = Provisional(plain=calibration, corrected=calibration, usual=0.0, steps=4)
    found = fit_thresholds(list(np.linspace(0, 1, 30)), ["a"] * 30, 0.1)
    found.provisional = new
    return found


def test_unlabelled_episodes_correct_it_and_ten_labelled_ones_end_it():
    found = thresholds()
    assert found.choose("new") == (2.0, "provisional", "provisional threshold: 10 more successes of new calibrate it")
    for _ in range(12):
        found.notice("new", 1.6)
    assert len(found.levels["new"]) == 10
    assert found.choose("new").threshold == pytest.approx(2.0 + 10 / 13 * 1.6)
    found.notice("a", 9.0)
    found.notice("other", float("nan"))
    assert set(found.levels) == {"new"}
    for i in range(10):
        assert found.choose("new").basis == "provisional"
        found.watch("new", float(i))
    assert found.choose("new").basis == "task"
    assert found.choose("new").threshold == pytest.approx(9.0)


def test_it_survives_the_disk_and_refuses_what_is_not_a_number():
    found = thresholds()
    for _ in range(6):
        found.notice("new", 1.6)
    again = Thresholds.from_dict(found.as_dict())
    again.adopt(found.adapted(), "adapted")
    assert again.choose("new") == found.choose("new")
    bad = {**found.as_dict()}
    bad["provisional"] = {**bad["provisional"], "usual": float("nan")}
    with pytest.raises(EpisodeDataError, match="provisional, usual"):
        Thresholds.from_dict(bad)


class Even:
    """A predictor that always says the same."""

    def reset(self, task):
        pass

    def update(self, signals, hidden):
        return Risk(p_fail=0.5, evidence=0.5)

    def save_state(self):
        return {}

    def load_state(self, state):
        pass


def run(monitor, steps):
    for record in steps:
        monitor.step(record)


def test_an_episode_and_its_forks_count_once():
    """Saved after two of four steps, ended, and continued twice: one level and one success, not three. The next counts."""
    monitor = make_monitor(Even(), TriggerRule(), 2.0)
    monitor.thresholds = thresholds()
    task, steps = Task(id="new", suite="point", instruction="go", horizon=9), make_steps(6, 4, 4)
    monitor.reset(task)
    run(monitor, steps[:2])
    snapshot = monitor.save_state()
    run(monitor, steps[2:])
    monitor.finish(True)
    for success in (True, False):
        monitor.load_state(snapshot)
        run(monitor, steps[2:])
        monitor.finish(success)
    assert monitor.thresholds.levels == {"new": [0.5]}
    assert len(monitor.thresholds.watched["new"]) == 1
    monitor.load_state(snapshot)  # given up: the next reset must not count it either
    monitor.reset(task)
    assert monitor.thresholds.levels == {"new": [0.5]}
    run(monitor, steps)
    monitor.finish(True)
    assert monitor.thresholds.levels == {"new": [0.5, 0.5]}
    assert len(monitor.thresholds.watched["new"]) == 2
