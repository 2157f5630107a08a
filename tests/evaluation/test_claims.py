"""The one rule for what is shown, figures at a moment, and new tasks, with values worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import LOG_COLUMNS, log_sequences

from failsight.evaluation.bench_figures import bootstraps
from failsight.evaluation.claims import (
    Bootstraps,
    Counts,
    Difference,
    claim,
    count,
    draw_difference,
    holm,
    is_shown,
    mean_difference,
    paired,
)
from failsight.evaluation.judging import DataSet, Traces, blend_traces, facts_of, judge
from failsight.evaluation.moments import behind, headline_claims, mean_of_logs, moment_figures, sets_of
from failsight.evaluation.new_tasks import new_task_figures
from failsight.evaluation.protocols import PROTOCOLS, EpisodeFacts, splits
from failsight.evaluation.ranking import Ranking
from failsight.monitor.probability import ProbabilityMap
from failsight.predictors.detectors import BLEND, DETECTORS

MAP = ProbabilityMap(centre=0.0, spread=1.0, slope=1.0, late=0.0, intercept=0.0, histories={})


def rank(score, failed, task="a"):
    return Ranking(np.arange(len(score)), np.array(score, float), np.array(failed, bool), np.full(len(score), task))


def gap(low):
    return {"low": low, "left_out": False}


def test_shown_needs_every_row_beyond_its_interval():
    assert is_shown([gap(0.1), gap(3.0)])
    assert not is_shown([gap(0.1), gap(-0.1)])
    assert not is_shown([gap(0.0)])
    assert not is_shown([gap(None)])
    assert not is_shown([{"low": 5.0, "left_out": True}])
    assert not is_shown([])


def test_the_wider_interval_decides():
    """By episode the difference is clear, by task it is not: not shown."""
    narrow, wide = np.linspace(1.0, 3.0, 200), np.linspace(-4.0, 8.0, 200)
    row = paired(Difference(2.0, narrow, wide), Counts(30, 30))
    assert row["decides"] == "tasks"
    assert row["low"] == row["low_tasks"] < 0 < row["low_episodes"]
    assert not is_shown([row])
    other = paired(Difference(2.0, wide, narrow), Counts(30, 30))
    assert other["decides"] == "episodes"
    assert other["low"] == other["low_episodes"]


def test_too_few_of_either_outcome_are_counted_and_not_tested():
    draws = np.linspace(1.0, 3.0, 200)
    assert paired(Difference(2.0, draws, draws), Counts(9, 500))["left_out"]
    assert not paired(Difference(2.0, draws, draws), Counts(10, 10))["left_out"]
    text = claim({"value": 90.0, "low": 80.0, "high": 95.0, "left_out": True, "failures": 9, "successes": 500}, {})
    assert not text["shown"]
    assert "9 failures and 500 successes still running are too few" in text["sentence"]


def test_a_difference_is_of_the_same_episodes_by_hand():
    """a ranks 2 failures over 2 successes (100); b gets one of four pairs wrong (75)."""
    failed = [True, True, False, False]
    ones = Bootstraps(np.ones((3, 4), np.float32), np.ones((3, 4), np.float32))
    d = draw_difference([rank([3, 4, 1, 2], failed)], [rank([1.5, 4, 1, 2], failed)], ones, within=False)
    assert d.value == pytest.approx(25.0)
    assert d.episodes == pytest.approx([25.0] * 3)
    assert count([rank([1, 2, 3, 4], failed)]) == (2, 2)


def test_holm_and_who_is_behind():
    """Of two p-values 0.03 the smaller is doubled; ahead is never behind, whatever its p."""
    assert holm({"a": 0.03, "b": 0.03}) == {"a": 0.06, "b": 0.06}
    tests = {
        "worse": {"p": 0.001, "value": -3.0, "left_out": False},
        "better": {"p": 0.001, "value": 3.0, "left_out": False},
        "noise": {"p": 0.4, "value": -1.0, "left_out": False},
        "few": {"p": 0.0001, "value": -9.0, "left_out": True},
    }
    assert behind(tests)["behind"] == ["worse"]
    assert behind(tests)["tests"] == 3


def test_the_mean_of_logs_leaves_small_cells_out():
    flat = np.linspace(-1, 1, 50)
    cells = [(Difference(v, flat + v, flat + v), n) for v, n in ((4.0, Counts(20, 20)), (2.0, Counts(10, 99)))]
    row = mean_of_logs([*cells, (Difference(-90.0, flat, flat), Counts(8, 400))])
    assert row["value"] == pytest.approx(3.0)
    assert row["cells"] == 2
    assert mean_difference([d for d, _ in cells]).episodes == pytest.approx(flat + 3)
    assert mean_of_logs([(Difference(1.0, flat, flat), Counts(3, 3))]) is None


def traces(evidence, seen=(), unseen=(), validate=()):
    parts = (np.array(p, int) for p in (seen, unseen, validate))
    shown, away, held = parts
    return Traces(seen=shown, unseen=away, evidence=evidence, validate=held, probability=MAP, fit_s=0.0, step_us=0.0)


def facts(tasks, failed, lengths, horizon=8, condition=None):
    failed = np.array(failed, bool)
    return EpisodeFacts(
        np.array(tasks), failed, np.array(lengths), horizon, failed & (np.array(lengths) >= horizon), condition
    )


def test_a_finished_episode_is_not_compared_and_the_clock_is_a_half():
    """Scores grow with time: up to a cut with finished successes the clock ranks perfectly, at the step it cannot."""
    about = facts(["a"] * 40, [True] * 20 + [False] * 20, [8] * 20 + [3] * 10 + [8] * 10)
    clock = traces({i: np.arange(n, dtype=float) for i, n in enumerate(about.length)}, seen=range(40))
    boots = bootstraps(about, "t")
    figures = moment_figures({"folds": [clock]}, about, boots, False)
    assert figures["50"]["seen_within"]["value"] == 50.0
    assert figures["50"]["seen_within"]["successes"] == 10
    assert figures["early"]["seen"]["successes"] == 20
    assert figures["50"]["seen"]["auprc"]["prevalence"] == pytest.approx(100 * 20 / 30)
    claims = headline_claims({"folds": [clock]}, {"clock": {"folds": [clock]}}, about, boots, False)
    assert not claims["seen_within"]["shown"]


def test_the_score_is_that_of_the_step_not_the_largest_before_it():
    about = facts(["a"] * 2, [True, False], [8, 8])
    row = traces({0: np.array([9.0, 0, 0, 1, 0, 0, 0, 0]), 1: np.array([0.0, 0, 0, 2, 0, 0, 0, 0])}, seen=(0, 1))
    (sets,) = sets_of({"folds": [row]}, about, "seen", "50", False)
    assert sets.score.tolist() == [1.0, 2.0]


def test_pairs_across_folds_count_for_evidence_and_not_for_constants():
    """Failure and success fell into different folds: the evidence ranks them (100); the constants of two fits must not."""
    about = facts(["a"] * 2, [True, False], [8, 8])
    folds = [traces({0: np.full(8, 2.0)}, seen=(0,)), traces({1: np.full(8, 1.0)}, seen=(1,))]
    (merged,) = sets_of({"folds": folds}, about, "seen_within", "50", True)
    assert merged.unit.tolist() == [0, 1]
    assert [r.unit.tolist() for r in sets_of({"folds": folds}, about, "seen_within", "50", False)] == [[0], [1]]


def test_what_could_not_be_judged_is_left_out_and_not_zero():
    about = facts(["a"] * 2, [True, False], [8, 8])
    row = traces({0: np.full(8, np.nan), 1: np.zeros(8)}, seen=(0, 1))
    (sets,) = sets_of({"folds": [row]}, about, "seen", "50", False)
    assert sets.unit.tolist() == [1]


def test_knowing_the_perturbation_is_a_row_of_its_own():
    """Outcomes follow the perturbation alone: the condition prior ranks them, and within a condition nothing is left."""
    sequences = [replace(s, condition="bump" if s.failed else "none") for s in log_sequences()]
    sequences = [replace(s, condition="bump") if i % 9 == 0 else s for i, s in enumerate(sequences)]
    data = DataSet(
        name="log", columns=LOG_COLUMNS, sequences=tuple(sequences), facts=facts_of(sequences, 40), rate_hz=4.0
    )
    folds = splits(PROTOCOLS["folds"], data.facts)
    rows = {
        n: {"folds": [judge(data, DETECTORS[n], s, k) for k, s in enumerate(folds)]}
        for n in ("condition_prior", "task_prior", "clock")
    }
    boots = bootstraps(data.facts, "t")
    prior = moment_figures(rows["condition_prior"], data.facts, boots, False)["early"]
    assert prior["seen"]["value"] > 85
    assert prior["seen_within_condition"]["value"] == 50.0
    claims = headline_claims(rows["condition_prior"], rows, data.facts, boots, False)
    assert not claims["seen"]["shown"]
    assert claims["seen"]["over"]["condition_prior"]["value"] == 0
    assert DETECTORS["condition_prior"].lacks.__self__.by == "condition"


def test_traces_of_the_blend_are_those_of_its_stream():
    sequences = log_sequences(count=60)
    data = DataSet(
        name="log", columns=LOG_COLUMNS, sequences=tuple(sequences), facts=facts_of(sequences, 40), rate_hz=4.0
    )
    split = splits(PROTOCOLS["folds"], data.facts)[0]
    direct = judge(data, DETECTORS["blend"], split, 0)
    parts = {member: judge(data, DETECTORS[name], split, 0) for member, name in BLEND.items()}
    derived = blend_traces(parts, data, split)
    for i, values in direct.evidence.items():
        assert derived.evidence[i] == pytest.approx(values, abs=1e-9)
    assert derived.probability == direct.probability


def test_false_alarms_on_new_tasks_by_hand():
    """Four tasks of 30 successes; the evidence of an episode is constant, N(0, 0.2), and 0.5 higher on task c.

    The threshold of the others lies near 1.28 * 0.2 = 0.26: P(0.5 + N > 0.26) = 0.88 of c alarms. Ten episodes of c
    raise it by 10 / 13 * 0.5 = 0.38: P(0.5 + N > 0.64) = 0.24, and the first five stay as they were.
    """
    rng = np.random.default_rng(0)
    tasks = np.repeat(["a", "b", "c", "d"], 40)
    failed = np.tile(np.arange(40) >= 30, 4)
    about = facts(tasks, failed, np.full(160, 8))
    level = rng.normal(0, 0.2, 160) + 0.5 * (tasks == "c") + 3 * failed
    rows = []
    for split in splits(PROTOCOLS["new_tasks"], about):
        evidence = {int(i): np.full(8, level[i]) for i in np.r_[split.validate, split.unseen]}
        rows.append(traces(evidence, unseen=split.unseen, validate=split.validate))
    found = new_task_figures(rows, about, 0.1, 4.0)
    assert found["uncorrected"]["tasks"]["c"] > 0.75
    assert found["before_labels"]["tasks"]["c"] < 0.5
    assert found["before_labels"]["recall"]["value"] > 0.9
    assert found["after_ten"]["mean_of_tasks"]["value"] < 0.15
