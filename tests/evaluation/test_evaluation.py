import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from failsight.core.types import Outcome
from failsight.evaluation import detection
from failsight.evaluation.detection import Scored, auc, within_auc
from failsight.evaluation.intervals import bootstrap, mean_of_fits, proportion
from failsight.evaluation.paired import PairedEpisode, beta_e_value, compare, mcnemar


def scored(i, failed, score, length=100, kind=None, trigger=None, task="t", onset=60):
    kind = (0 if kind is None else kind) if failed else -1
    types = np.zeros((length, 4))
    types[:, max(kind, 0)] = 1
    return Scored(
        ticket=i,
        task=task,
        condition="none",
        failed=failed,
        kind=kind,
        onset=onset if failed else None,
        p_fail=np.full(length, score),
        alarm=np.full(length, score),
        types=types,
        time_to_failure=np.full(length, float(onset)),
        dimension=np.zeros((length, 0)),
        dimension_labels=np.zeros((length, 7), bool),
        trigger=trigger,
    )


def test_auc_equals_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    scores, failed = rng.integers(0, 5, 200) / 5, rng.random(200) < 0.3
    assert auc(scores, failed) == pytest.approx(roc_auc_score(failed, scores))


def test_one_class_is_no_data_not_a_number():
    assert np.isnan(auc(np.arange(3.0), np.zeros(3, bool)))
    assert np.isnan(within_auc(np.arange(2.0), np.array([True, False]), np.array(["a", "b"])))
    assert np.isnan(proportion(0, 0).value)
    assert proportion(0, 0).as_dict() == {"value": None, "low": None, "high": None, "n": 0}


def test_within_task_auc_sees_through_a_task_prior():
    rng = np.random.default_rng(1)
    tasks = rng.integers(0, 2, 600)
    failed = rng.random(600) < np.where(tasks, 0.8, 0.2)
    prior = np.where(tasks, 0.8, 0.2)
    assert auc(prior, failed) > 0.75
    assert within_auc(prior, failed, tasks) == pytest.approx(0.5)


def test_only_episodes_still_running_are_compared():
    episodes = [scored(i, False, 0.9, length=50) for i in range(5)]
    episodes += [scored(i, True, 0.8) for i in range(5)] + [scored(i, False, 0.1) for i in range(5)]
    assert detection.auc_points(episodes, 80)["auc"] == 1.0
    assert detection.auc_points(episodes, 20)["auc"] == 0.5


def test_the_clock_is_a_half_at_equal_elapsed_time():
    episodes = [scored(i, i % 2 == 0, 0.37) for i in range(20)]
    assert detection.auc_points(episodes, 50)["auc"] == 0.5


def test_a_missed_failure_has_lead_zero():
    episodes = [scored(0, True, 0.9, trigger=40), scored(1, True, 0.1)]
    assert detection.lead_steps(episodes).value == pytest.approx((60 + 0) / 2)
    assert detection.before_onset(episodes).value == 0.5
    assert detection.recall(episodes).value == 0.5


def test_an_alarm_after_the_onset_is_not_before_it():
    """Onset at 60: alarms at 40 and 60 are in time, at 61 and 90 too late, and a missed failure never is: 2 of 5."""
    episodes = [scored(i, True, 0.9, trigger=at) for i, at in enumerate((40, 60, 61, 90, None))]
    assert detection.before_onset(episodes).value == pytest.approx(2 / 5)


def test_types_are_scored_over_the_types_that_occur():
    episodes = [scored(i, True, 0.9, kind=i % 2) for i in range(10)]
    result = detection.type_scores(episodes, "t")
    assert result.f1[:2].tolist() == [1.0, 1.0]
    assert np.isnan(result.f1[2:]).all()
    assert result.macro_f1.value == 1.0


def test_a_perfect_forecast_has_no_calibration_error():
    rng = np.random.default_rng(0)
    p = rng.random(4000)
    episodes = [scored(i, bool(rng.random() < p[i]), p[i]) for i in range(4000)]
    table = detection.reliability(episodes, 20)
    assert table["ece"] < 0.03
    bad = [scored(i, bool(rng.random() < p[i]), 1 - p[i]) for i in range(1000)]
    assert detection.reliability(bad, 20)["ece"] > 0.3


def test_concordance_orders_failures_in_time():
    early = scored(0, True, 0.9, onset=30)
    late = scored(1, True, 0.9, onset=90)
    assert detection.concordance([early, late] * 10, 20, "t").value == 1.0


def test_clopper_pearson_covers():
    rng = np.random.default_rng(0)
    covered = [(lambda e: e.low <= 0.3 <= e.high)(proportion(int(rng.binomial(40, 0.3)), 40)) for _ in range(400)]
    assert np.mean(covered) >= 0.94


def test_bootstrap_is_reproducible_and_covers():
    rng = np.random.default_rng(0)
    hits = []
    for i in range(100):
        x = rng.standard_normal(60)
        estimate = bootstrap(lambda rows, x=x: float(x[rows].mean()), [0] * 60, ("cover", i), draws=300)
        hits.append(estimate.low <= 0 <= estimate.high)
    assert 0.86 <= np.mean(hits) <= 1.0
    again = bootstrap(lambda rows: float(x[rows].mean()), [0] * 60, ("cover", 99), draws=300)
    assert again == estimate


def test_mean_of_fits():
    assert mean_of_fits([0.4, 0.6]).value == pytest.approx(0.5)
    assert np.isnan(mean_of_fits([0.4]).low)


def episode(outcome, triggered=False, collision=False, human=0):
    return PairedEpisode(
        task="t",
        outcome=outcome,
        collision=collision,
        triggered=triggered,
        steps=100,
        intervened_steps=human,
        human_steps=human,
    )


S, F, X = Outcome.SUCCESS, Outcome.FAILURE, Outcome.STOPPED


def test_rescue_harm_and_reduction_by_hand():
    without = [episode(F, collision=True), episode(F), episode(F), episode(F), episode(S), episode(S), episode(S)]
    arm = [
        episode(S, True, human=50),
        episode(S, True),
        episode(F, True),
        episode(F),
        episode(F, True),
        episode(S, True),
        episode(S),
    ]
    result = compare("arm", without, arm, 20.0)
    assert (result.pairs, result.triggers) == (7, 5)
    assert result.rescue_rate.value == pytest.approx(2 / 3)
    assert result.harm_rate.value == pytest.approx(1 / 2)
    assert result.failure_reduction.value == pytest.approx(1 - 3 / 4)
    assert result.collision_reduction.value == 1.0
    assert result.human_minutes_per_hour == pytest.approx(60 * 50 / 700)


def test_a_stop_is_not_a_success():
    result = compare("stop", [episode(S), episode(F)], [episode(X, True), episode(X, True)], 20.0)
    assert result.success_rate.value == 0
    assert result.harm_rate.value == 1.0
    assert result.stop_rate.value == 1.0


def test_mcnemar_is_exact():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(6, 0) == pytest.approx(2 * 0.5**6)


def test_the_e_value_keeps_its_type_one_error_at_any_stopping_time():
    rng = np.random.default_rng(0)
    stopped = 0
    for _ in range(300):
        wins = np.cumsum(rng.random(150) < 0.5)
        losses = np.arange(1, 151) - wins
        stopped += any(beta_e_value(int(won), int(lost)) >= 20 for won, lost in zip(wins, losses, strict=True))
    assert stopped / 300 <= 0.05
    assert beta_e_value(20, 1) > 1000
    assert beta_e_value(1, 20) < 1
