from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from failsight.core.types import FAILURE_TYPES, Outcome
from failsight.evaluation import detection
from failsight.evaluation.detection import Scored, auc, within_auc
from failsight.evaluation.intervals import bootstrap, mean_of_fits, proportion
from failsight.evaluation.paired import PairedEpisode, beta_e_value, compare, mcnemar, success_gap


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


ALIVE = [
    scored(0, True, 0.9, task="a"),
    scored(1, False, 0.5, task="a"),
    replace(scored(2, False, 0.95, task="a"), condition="windy"),
    scored(3, True, 0.4, task="b"),
    replace(scored(4, True, 0.3, task="b"), condition="windy"),
    replace(scored(5, False, 0.2, task="b"), condition="windy"),
]
OVER = [scored(6, True, 0.0, task="a", length=40), scored(7, False, 1.0, task="b", length=10)]


def test_aucs_by_hand_pooled_and_within_groups():
    """Failures 0.9, 0.4, 0.3 against 0.5, 0.95, 0.2 win 4 of 9 pairs; 3 of 4 within the tasks, 2 of 4 within the
    conditions, 2 of 2 within both. Whoever is over at step 40 takes no part.
    """
    expected = {"auc": 4 / 9, "within_task_auc": 3 / 4, "within_perturbation_auc": 1 / 2}
    expected["within_task_and_perturbation_auc"] = 1.0
    assert detection.auc_points(ALIVE + OVER, 40) == pytest.approx(expected)
    table = detection.auc_table(ALIVE + OVER, 40, "some log")
    assert {name: estimate.value for name, estimate in table.items()} == pytest.approx(expected)
    assert {estimate.n for estimate in table.values()} == {6}


def test_the_interval_of_an_auc_resamples_within_task_and_outcome():
    failed, score = np.array([e.failed for e in ALIVE]), np.array([e.p_fail[0] for e in ALIVE])
    strata = ["a failed", "a", "a", "b failed", "b failed", "b"]
    strata = [f"{s[0]}|{'failed' in s}" for s in strata]
    key = ("some log", "auc", 40)
    expected = bootstrap(lambda rows: float(roc_auc_score(failed[rows], score[rows])), strata, key)
    found = detection.auc_table(ALIVE + OVER, 40, "some log")["auc"]
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.low < found.value < found.high


def test_groups_weigh_by_their_pairs():
    """Group a wins 1 of 1 pair, group b 1 of 4: 2 of 5, where the mean of the groups would be 0.625."""
    scores, groups = np.array([2.0, 1.0, 1.0, 2.0, 1.5, 3.0]), np.array(["a", "a", "b", "b", "b", "b"])
    failed = np.array([True, False, True, True, False, False])
    assert within_auc(scores, failed, groups) == pytest.approx(2 / 5)


def test_one_pair_is_enough_for_an_auc_and_one_class_never_is():
    assert auc(np.array([0.1, 0.9]), np.array([False, True])) == 1.0
    assert auc(np.array([0.9, 0.1]), np.array([False, True])) == 0.0
    assert np.isnan(auc(np.array([0.1, 0.9]), np.array([True, True])))


def test_alarms_are_counted_among_their_own_outcome():
    """An alarm at step 0 is an alarm: 1 of 3 successes, 2 of 4 failures."""
    good = [scored(i, False, 0.1, trigger=at) for i, at in enumerate((0, None, None))]
    bad = [scored(i, True, 0.9, trigger=at) for i, at in enumerate((0, 7, None, None))]
    assert detection.false_alarms(good + bad) == proportion(1, 3)
    assert detection.recall(good + bad) == proportion(2, 4)


def test_leads_count_failures_alone_with_an_interval_over_them():
    """Alarms at 0, 40 and never of 100 steps: leads 100, 60 and 0. A success has none, nor has an empty log."""
    bad = [scored(i, True, 0.9, trigger=at) for i, at in enumerate((0, 40, None))]
    found = detection.lead_steps([*bad, scored(3, False, 0.9, trigger=1)])
    leads = np.array([100.0, 60.0, 0.0])
    expected = bootstrap(lambda rows: float(leads[rows].mean()), ["all"] * 3, ("lead",))
    assert found == expected
    assert found.value == pytest.approx(160 / 3)
    nothing = detection.lead_steps([scored(0, False, 0.9)])
    assert (nothing.as_dict()["value"], nothing.n) == (None, 0)


def test_only_failures_with_a_known_onset_can_have_an_alarm_before_it():
    in_time, unknown = scored(0, True, 0.9, trigger=40), replace(scored(1, True, 0.9, trigger=40), onset=None)
    success = replace(scored(2, False, 0.9, trigger=40), onset=60)
    assert detection.before_onset([in_time, unknown, success]) == proportion(1, 1)


def confused():
    """Six failures of types 0, 0, 0, 1, 1, 2 taken for 0, 0, 1, 1, 1, 0; a first step, out of the window, says 3."""
    episodes = []
    for truth, guess in zip((0, 0, 0, 1, 1, 2), (0, 0, 1, 1, 1, 0), strict=True):
        types = np.zeros((81, 4))
        types[0, 3], types[1:, guess] = 1000.0, 0.5
        episodes.append(replace(scored(0, True, 0.9, kind=truth), types=types))
    unknown = replace(scored(6, True, 0.9), kind=-1)
    return [*episodes, unknown, scored(7, False, 0.1)]


def test_type_scores_by_hand():
    """Type 0: 2 of 3 said and of 3 there; type 1: 2 of 3 said, of 2 there; type 2 is never said; type 3 is not there."""
    result = detection.type_scores(confused(), "types")
    assert result.support.tolist() == [3, 2, 1, 0]
    np.testing.assert_allclose(result.precision, [2 / 3, 2 / 3, 0, np.nan])
    np.testing.assert_allclose(result.recall, [2 / 3, 1, 0, np.nan])
    np.testing.assert_allclose(result.f1, [2 / 3, 4 / 5, 0, np.nan])
    assert result.macro_f1.value == pytest.approx(22 / 45)
    assert result.macro_recall.value == pytest.approx(5 / 9)


def test_the_intervals_of_type_scores_resample_within_the_true_type():
    truth, guess = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    options = {"average": "macro", "labels": [0, 1, 2], "zero_division": 0}
    result = detection.type_scores(confused(), "types")
    for found, score, name in ((result.macro_f1, f1_score, "f1"), (result.macro_recall, recall_score, "recall")):
        expected = bootstrap(lambda r, score=score: score(truth[r], guess[r], **options), truth, ("types", name))
        assert (found.low, found.high, found.n) == pytest.approx((expected.low, expected.high, 6))


def test_type_scores_as_json_have_null_where_there_is_no_data():
    found = detection.type_scores(confused(), "types").as_dict()
    assert list(found["per_type"]) == list(FAILURE_TYPES)
    one, missing = found["per_type"][FAILURE_TYPES[1]], found["per_type"][FAILURE_TYPES[3]]
    assert one == pytest.approx({"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "n": 2})
    assert missing == {"precision": None, "recall": None, "f1": None, "n": 0}
    assert found["macro_f1"]["value"] == pytest.approx(22 / 45)
    assert found["macro_recall"]["value"] == pytest.approx(5 / 9)
    empty = detection.type_scores([], "types").as_dict()
    assert empty["macro_f1"] == {"value": None, "low": None, "high": None, "n": 0}


def test_types_by_the_mean_of_their_scores():
    """Type 1 has the one highest score, type 0 the higher mean."""
    types = np.tile([0.6, 0.1, 0.0, 0.0], (10, 1))
    types[4, 1] = 0.9
    assert detection.type_scores([replace(scored(0, True, 0.9), types=types)], "t").recall[0] == 1.0


def forecasts(*pairs):
    return [scored(i, bool(failed), p) for i, (p, failed) in enumerate(pairs)]


def test_reliability_by_hand():
    """Bins 0.1, 0.3, 0.5 (1 of 3 fails) and 0.6, 0.8 (both): ECE (3/30 + 2 * 0.3) / 5, Brier 0.95 / 5."""
    episodes = forecasts((0.8, 1), (0.1, 0), (0.5, 0), (0.3, 1), (0.6, 1))
    found = detection.reliability([*episodes, scored(9, True, 0.0, length=20)], 20, bins=2)
    assert (found["ece"], found["brier"], found["n"]) == pytest.approx((0.14, 0.19, 5))
    assert [row["predicted"] for row in found["bins"]] == pytest.approx([0.3, 0.7])
    assert [row["observed"] for row in found["bins"]] == [proportion(1, 3).as_dict(), proportion(2, 2).as_dict()]


def test_reliability_needs_an_episode_for_each_of_eight_bins():
    episodes = forecasts(*[(0.5, 1)] * 8)
    assert detection.reliability(episodes[:7], 20) == {"ece": None, "brier": None, "n": 7, "bins": []}
    found = detection.reliability(episodes, 20)
    assert (found["ece"], len(found["bins"])) == (0.5, 8)


def foreseen(onset, guess, length=100):
    """A failure whose time to failure is `guess` at step 20 and the reverse of any order elsewhere."""
    time = np.full(length, -guess, float)
    time[20:21] = guess
    return replace(scored(0, True, 0.9, length=length, onset=onset), time_to_failure=time)


def test_concordance_by_hand():
    """Onsets 30, 50, 90 guessed 4, 4, 7: a tie and two right pairs, 2.5 of 3. Not to come, over or no failure: out."""
    rows = [foreseen(30, 4), foreseen(90, 7), foreseen(50, 4)]
    others = [foreseen(20, 9), foreseen(95, 0, length=20), scored(1, False, 0.1), replace(foreseen(9, 9), onset=None)]
    time, guess = np.array([30, 90, 50]), np.array([4, 7, 4])

    def share(sample):
        pairs = [(i, j) for i in sample for j in sample if time[i] < time[j]]
        right = [1.0 if guess[i] < guess[j] else 0.5 if guess[i] == guess[j] else 0.0 for i, j in pairs]
        return sum(right) / len(right) if right else float("nan")

    found = detection.concordance(rows + others, 20, "log")
    assert found == bootstrap(share, ["all"] * 3, ("log", "c-index", 20))
    assert found.value == pytest.approx(2.5 / 3)
    assert detection.concordance([foreseen(30, 7), foreseen(50, 4)], 20, "log").value == 0.0
    assert np.isnan(detection.concordance(rows[:1], 20, "log").value), "one failure has no order"


def moving(scores, labels):
    return replace(scored(0, True, 0.9), dimension=np.array(scores), dimension_labels=np.array(labels, bool))


def test_the_auc_of_action_dimensions_by_hand():
    """Dimension x: labelled 0.9 and 0.3 against 0.1 and 0.5, 3 of 4 pairs; y: 0.2 against 0.1, 0.4, 0.6, 1 of 3."""
    first = moving([[0.1, 0.2], [0.9, 0.1]], [[0, 1], [1, 0]])
    second = moving([[0.3, 0.4], [0.5, 0.6]], [[1, 0], [0, 0]])
    found = detection.dimension_auc([first, scored(1, True, 0.9), second], ["x", "y"])
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx({"x": 3 / 4, "y": 1 / 3})
    assert found["x"].n == 2
    empty = detection.dimension_auc([scored(1, True, 0.9)], ["x"])["x"]
    assert (empty.as_dict()["value"], empty.n) == (None, 0)


def test_the_interval_of_a_dimension_resamples_labelled_and_other_episodes_apart():
    rng = np.random.default_rng(0)
    scores, labels = rng.random((6, 5)), rng.random((6, 5)) < 0.5
    labels[4:] = False
    found = detection.dimension_auc(
        [moving(s[:, None], y[:, None]) for s, y in zip(scores, labels, strict=True)], ["x"]
    )
    strata = [True] * 4 + [False] * 2
    expected = bootstrap(
        lambda rows: float(roc_auc_score(labels[rows].ravel(), scores[rows].ravel())), strata, ("dimension", "x"), 100
    )
    assert (found["x"].low, found["x"].high) == pytest.approx((expected.low, expected.high))


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
    assert result.rescue_rate == proportion(2, 3)
    assert result.harm_rate == proportion(1, 3), "of all that succeed without"
    assert result.harm_alarmed == proportion(1, 2), "of those with an alarm"
    assert result.rr == proportion(3, 5), "of five alarms three end in success, one of which would have anyway"
    assert (result.rescues, result.harms) == (2, 1)
    assert result.failure_reduction.value == pytest.approx(1 - 3 / 4)
    assert result.collision_reduction.value == 1.0
    assert result.human_minutes_per_hour == pytest.approx(60 * 50 / 700)


def test_two_arms_are_compared_on_the_same_episodes_by_hand():
    """Arms that win and lose the same episodes differ by 0 without any width; a lead of 3 of 10 is 0.3, either way round."""
    half = [episode(S)] * 5 + [episode(F)] * 5
    same = success_gap("x", half, half)
    assert (same.value, same.low, same.high, same.n) == (0.0, 0.0, 0.0, 10)
    ahead = [episode(S)] * 7 + [episode(F), episode(S), episode(X)]
    gap, back = success_gap("x", ahead, half), success_gap("x", half, ahead)
    assert (gap.value, back.value) == (pytest.approx(0.3), pytest.approx(-0.3))
    assert gap.low <= 0.3 <= gap.high
    assert (gap.low, gap.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    every = success_gap("x", [episode(S)] * 10, [episode(F)] * 10)
    assert (every.value, every.low, every.high) == (1.0, 1.0, 1.0)


def two_tasks():
    """Ten pairs on two tasks: 3 wins, 1 loss, 1 stop of a failure; an arm that moves on 30 and asks for 10 of 100 steps."""
    before = [F, F, F, F, S, S, F, S, S, F]
    after = [S, S, F, X, S, F, S, S, S, F]
    tasks = ["a"] * 5 + ["b"] * 5
    hits = [(1, 0), (1, 1), (0, 1), (1, 0), (0, 0), (0, 0), (1, 0), (0, 0), (0, 0), (0, 0)]
    without = [replace(episode(o, collision=bool(h[0])), task=t) for o, t, h in zip(before, tasks, hits, strict=True)]
    arm = [
        replace(episode(o, i < 7, bool(h[1]), human=10), task=t, intervened_steps=30)
        for i, (o, t, h) in enumerate(zip(after, tasks, hits, strict=True))
    ]
    return without, arm


def test_every_figure_of_an_arm_by_hand():
    """Successes 4 -> 6, failures 6 -> 4 with the stop, collisions 4 -> 2; 7 triggered: 5 fail without, 2 succeed."""
    found = compare("arm", *two_tasks(), 20.0)
    assert (found.name, found.pairs, found.triggers) == ("arm", 10, 7)
    assert found.success_rate == proportion(6, 10)
    assert found.collision_rate == proportion(2, 10)
    assert found.stop_rate == proportion(1, 10)
    assert found.rescue_rate == proportion(3, 5)
    assert found.harm_rate == proportion(1, 4)
    assert found.harm_alarmed == proportion(1, 2)
    assert found.rr == proportion(4, 7)
    assert (found.rescues, found.harms) == (3, 1)
    assert found.success_change.value == pytest.approx(0.2)
    assert found.failure_reduction.value == pytest.approx(1 - 4 / 6)
    assert found.collision_reduction.value == pytest.approx(1 - 2 / 4)
    assert found.mcnemar_p == pytest.approx((1 + 4 + 4 + 1) / 16), "3 to 1: at most 1 or at least 3 of 4 heads"
    assert found.e_value == pytest.approx(32 * 13 / 16 / 20), "2 * B(4, 2) * P(Beta(4, 2) > 1/2) * 2^4"
    assert found.duty_cycle == pytest.approx(0.3)
    assert found.human_minutes_per_hour == pytest.approx(6.0)


def test_the_intervals_of_an_arm_resample_pairs_within_their_task():
    without, arm = two_tasks()
    tasks = [e.task for e in without]
    won = np.array([[e.outcome == S for e in side] for side in (without, arm)], float)
    hit = np.array([[e.collision for e in side] for side in (without, arm)], float)

    def less(bad, rows):
        return 1 - bad[1, rows].sum() / bad[0, rows].sum() if bad[0, rows].sum() else float("nan")

    found = compare("arm", without, arm, 20.0)
    for estimate, statistic, key in (
        (found.success_change, lambda rows: (won[1, rows] - won[0, rows]).mean(), "success"),
        (found.failure_reduction, lambda rows: less(1 - won, rows), "failures"),
        (found.collision_reduction, lambda rows: less(hit, rows), "collisions"),
    ):
        expected = bootstrap(statistic, tasks, ("arm", key))
        assert (estimate.low, estimate.high, estimate.n) == pytest.approx((expected.low, expected.high, 10)), key


def test_an_arm_as_json_has_null_where_there_is_no_data():
    found = compare("arm", [episode(S)], [episode(S)], 20.0).as_dict()
    assert (found["name"], found["pairs"], found["mcnemar_p"], found["duty_cycle"]) == ("arm", 1, 1.0, 0.0)
    assert found["success_rate"] == proportion(1, 1).as_dict()
    assert found["rescue_rate"] == {"value": None, "low": None, "high": None, "n": 0}
    assert found["failure_reduction"]["value"] is None, "no failure that could be gone"
    nothing = compare("arm", [], [], 20.0)
    assert np.isnan(nothing.success_change.value)
    assert (nothing.duty_cycle, nothing.human_minutes_per_hour) == (0.0, 0.0)


def test_the_share_of_time_is_of_all_steps_even_of_one():
    one = replace(episode(S, True, human=1), steps=1)
    assert compare("arm", [one], [one], 20.0).duty_cycle == 1.0
    assert compare("arm", [one], [one], 20.0).human_minutes_per_hour == 60.0


def test_a_stop_is_not_a_success():
    result = compare("stop", [episode(S), episode(F)], [episode(X, True), episode(X, True)], 20.0)
    assert result.success_rate.value == 0
    assert result.harm_rate.value == 1.0
    assert result.stop_rate.value == 1.0


def test_mcnemar_is_exact():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(6, 0) == pytest.approx(2 * 0.5**6)
    assert mcnemar(1, 0) == mcnemar(0, 1) == mcnemar(1, 1) == 1.0
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 64)


def test_the_e_value_by_hand():
    """Twice the integral of p^wins (1 - p)^losses over (1/2, 1), times 2^(wins + losses)."""
    assert beta_e_value(0, 0) == pytest.approx(1.0)
    assert beta_e_value(1, 0) == pytest.approx(2 * 2 * (1 - 1 / 4) / 2)
    assert beta_e_value(0, 1) == pytest.approx(2 * 2 * (1 / 4) / 2)
    assert beta_e_value(5, 0) == pytest.approx(64 * (1 - 1 / 64) / 6)
    assert beta_e_value(0, 2000) == 0.0


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
