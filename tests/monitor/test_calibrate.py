"""Calibration from evidence to rule, band and thresholds, with values worked out by hand."""

import numpy as np
import pytest

from failsight.core.errors import CalibrationError
from failsight.monitor.band import Band
from failsight.monitor.calibrate import (
    LOG_RULE,
    Calibrated,
    few_successes,
    first_trigger,
    judged_by,
    pooled_threshold,
    rule_of,
    task_thresholds,
    usual_band,
    with_imminent,
)
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import TriggerRule

ONE = TriggerRule(needed=1, window=1, release_steps=1)
TWO = TriggerRule(needed=2, window=2, release_steps=1)


def episodes(*peaks):
    return [np.array([0.0, peak, 0.0]) for peak in peaks]


def test_the_pooled_threshold_lies_just_above_the_conformal_rank_of_the_deployed_statistic():
    """Nine successes, alpha .1: rank ceil(10 * .9) = 9, the largest of them."""
    nine = episodes(*np.arange(1, 10) / 10)
    assert pooled_threshold(nine, ONE, 0.1).threshold == pytest.approx(0.9)
    assert pooled_threshold(nine, ONE, 0.5).threshold == pytest.approx(0.5), "rank ceil(10 * .5) = 5"
    assert pooled_threshold(nine, TWO, 0.1).threshold == pytest.approx(0.0), "no value is reached on two ticks in a row"
    with pytest.raises(CalibrationError):
        pooled_threshold(nine[:8], ONE, 0.1)


def test_thresholds_by_task_judge_deviations_where_there_is_a_band():
    evidence = episodes(*np.arange(1, 41) / 10)
    plain = task_thresholds(evidence, ["a"] * 40, ["a"] * 40, ONE, None, 0.1)
    band = usual_band(evidence)
    banded = task_thresholds(evidence, ["a"] * 40, ["a"] * 40, ONE, band, 0.1)
    assert plain.choose("a").threshold == pytest.approx(3.7), "rank ceil(41 * .9) = 37"
    assert banded.choose("a").threshold != plain.choose("a").threshold
    assert isinstance(band, Band)
    assert usual_band([]) is None
    assert np.array_equal(judged_by(band, evidence[3]), band.apply(evidence[3]))
    assert judged_by(None, evidence[3]) is evidence[3]
    calibrated = Calibrated(rule=ONE, thresholds=banded, band=band)
    assert np.array_equal(calibrated.judged(evidence[3]), band.apply(evidence[3]))


def test_tasks_that_share_a_threshold_are_counted_in_a_sentence():
    tasks = ["a"] * 30 + ["b"] * 5
    thresholds = task_thresholds(episodes(*range(35)), tasks, [*tasks, "c"], ONE, None, 0.1)
    assert few_successes(thresholds).startswith("pooled threshold on 2 of 3 tasks: fewer than 20 calibration successes")
    assert few_successes(task_thresholds(episodes(*range(30)), tasks[:30], tasks[:30], ONE, None, 0.1)) == ""
    assert few_successes(Thresholds.fixed(0.5)) == ""


def test_the_first_trigger_is_the_step_at_which_the_rule_is_met():
    evidence = np.array([0.0, 0.6, 0.6, 0.0])
    assert first_trigger(evidence, ONE, 0.6) == 1
    assert first_trigger(evidence, TWO, 0.6) == 2
    assert first_trigger(evidence, TWO, 0.61) is None


def test_logged_inferences_wait_for_nobody_and_control_ticks_last_as_long_at_any_rate():
    assert rule_of(True, 50.0) is LOG_RULE
    assert rule_of(False, 20.0) == TriggerRule()
    assert (rule_of(False, 40.0).needed, rule_of(False, 40.0).window) == (6, 10)


def test_the_gain_makes_both_channels_equally_rare():
    """Constant .8 and .2: their quantiles are .8 and .2, so an imminent collision weighs four times."""
    p_fail, imminent = [np.full(6, 0.8)] * 20, [np.full(6, 0.2)] * 20
    assert with_imminent(TriggerRule(), p_fail, imminent, 0.1).imminent_gain == pytest.approx(4.0)
    ramp = [np.full(6, k / 20) for k in range(1, 21)]
    low = [np.full(6, 0.01 * k) for k in range(1, 21)]
    assert with_imminent(TriggerRule(), ramp, low, 0.1).imminent_gain == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("count", "p_fail", "imminent"), [(19, 0.8, 0.2), (20, 0.8, 0.0), (20, 0.2, 0.8), (20, np.nan, 0.2)]
)
def test_the_imminent_channel_stays_off(count, p_fail, imminent):
    rule = with_imminent(TriggerRule(), [np.full(6, p_fail)] * count, [np.full(6, imminent)] * count, 0.1)
    assert rule == TriggerRule()
