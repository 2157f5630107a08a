"""Ranking, alarms, calibration, leaks, explanation, patterns and survival figures, on data with known answers."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import LOG_COLUMNS, LOG_NAMES, log_sequences
from sklearn.metrics import average_precision_score, roc_auc_score

from failsight.evaluation.alarms import (
    Alarm,
    alarm_table,
    average_precision,
    false_alarm_rates,
    first_alarm,
    precision_at,
    threshold_at,
)
from failsight.evaluation.bench_figures import auc_figures, bootstraps, control_estimate, other_figures
from failsight.evaluation.calibration import brier_parts, calibration_error, calibration_table, perfect_reading
from failsight.evaluation.detection import within_auc
from failsight.evaluation.explain import Reference, explain
from failsight.evaluation.judging import (
    DataSet,
    facts_of,
    judge,
    load_traces,
    made_by,
    map_of,
    save_traces,
    trace,
    without_short,
)
from failsight.evaluation.leaks import find_leaks
from failsight.evaluation.moments import headline_claims
from failsight.evaluation.patterns import importance, learn_rules
from failsight.evaluation.protocols import PROTOCOLS, splits
from failsight.evaluation.ranking import Ranking, auc_draws, auc_estimate, difference, episode_weights, task_weights
from failsight.evaluation.survival import WINDOWS, TimeRows, beside_clock, c_index_draws, clock_rows, model_rows
from failsight.predictors.detectors import DETECTORS
from failsight.predictors.fit_ledger import fit_ledger
from failsight.recipes.bench import fits as bench_fits

SEQUENCES = log_sequences()
DATA = DataSet(name="log", columns=LOG_COLUMNS, sequences=tuple(SEQUENCES), facts=facts_of(SEQUENCES, 40), rate_hz=4.0)


def ranking(seed=0, n=60):
    rng = np.random.default_rng(seed)
    failed = rng.random(n) < 0.4
    score = np.round(rng.standard_normal(n) + failed, 1)
    return Ranking(np.arange(n), score, failed, np.array(["a", "b", "c"] * (n // 3)))


def test_aucs_equal_those_of_scikit_learn():
    r = ranking()
    ones = np.ones((1, 60), np.float32)
    assert auc_draws([r], ones, False)[0] == pytest.approx(roc_auc_score(r.failed, r.score))
    assert auc_draws([r], ones, True)[0] == pytest.approx(within_auc(r.score, r.failed, r.task))
    assert average_precision(r.score, r.failed) == pytest.approx(average_precision_score(r.failed, r.score))


def test_a_weight_of_two_is_an_episode_twice():
    r = ranking()
    weights = np.random.default_rng(1).integers(0, 3, (1, 60)).astype(np.float32)
    rows = np.repeat(np.arange(60), weights[0].astype(int))
    assert auc_draws([r], weights, False)[0] == pytest.approx(roc_auc_score(r.failed[rows], r.score[rows]), abs=1e-6)


def test_intervals_cover_and_paired_differences_are_tighter():
    covered = 0
    for seed in range(60):
        r = ranking(seed, 90)
        estimate = auc_estimate([r], episode_weights([str(f) for f in r.failed], ("t", seed), 200))
        covered += estimate.low <= 100 * 0.7602 <= estimate.high  # P(N(1,1) > N(0,1))
    assert covered >= 50
    r = ranking(3, 90)
    weights = episode_weights([str(f) for f in r.failed], ("d",), 200)
    other = r._replace(score=r.score + 0.01 * np.arange(90) % 0.3)
    gap, p = difference([r], [other], weights)
    alone = auc_estimate([r], weights)
    assert gap.high - gap.low < alone.high - alone.low
    assert p > 0.05
    assert difference([r], [r], weights)[1] == 1.0
    assert task_weights(list(r.task), ("t",), 50).sum(1).min() >= 0


@pytest.mark.parametrize("alpha", [0.05, 0.10, 0.15])
def test_split_conformal_keeps_its_promise_at_every_n(alpha):
    """Theory as a test: on exchangeable maxima the mean false-alarm rate stays at or below alpha + 0.01."""
    maxima = np.random.default_rng(0).standard_normal(600)
    rates = false_alarm_rates(maxima, alpha, "theory")
    assert set(rates) == {10, 20, 50, 200}
    for n, rate in rates.items():
        assert rate.value <= alpha + 0.01, n
    assert threshold_at(maxima[:10], 0.05) == float("inf")


def test_the_alarm_table_counts_missed_failures_as_no_lead():
    alarms = [Alarm(True, 10, 2), Alarm(True, 10, None), Alarm(False, 10, None), Alarm(False, 10, 5)]
    table = alarm_table(alarms, rate_hz=1.0)
    assert table["recall"]["value"] == 0.5
    assert table["precision"]["value"] == 0.5
    assert table["recall_half"]["value"] == 0.5
    assert table["lead_share"]["value"] == pytest.approx(0.4)
    assert table["false_alarms_per_100"] == 50
    assert table["false_alarms_per_hour"] == pytest.approx(180)
    assert alarm_table(alarms, rate_hz=0.0)["false_alarms_per_hour"] is None
    assert first_alarm(np.array([0.0, 2.0, 3.0]), 2.0) == 1
    assert precision_at(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]), 2).value == 0.5


def test_caught_by_half_length_is_before_half_of_its_own_length():
    """Of 10 steps: alarms at 4 count, at 5 and 9 do not; of 20 steps 9 counts. 2 of 5 (one is missed)."""
    alarms = [Alarm(True, 10, 4), Alarm(True, 10, 5), Alarm(True, 10, 9), Alarm(True, 20, 9), Alarm(True, 10, None)]
    table = alarm_table(alarms, rate_hz=1.0)
    assert table["recall_half"]["value"] == pytest.approx(2 / 5)
    assert table["recall"]["value"] == pytest.approx(4 / 5)


def test_calibration_error_of_true_probabilities_is_what_a_perfect_model_reads():
    rng = np.random.default_rng(0)
    p = rng.random(2000)
    failed = rng.random(2000) < p
    assert calibration_error(p, failed) < 0.04
    assert abs(calibration_error(p, failed) - perfect_reading(p)) < 0.02
    assert calibration_error(p**3, failed) > 0.15
    parts = brier_parts(p, failed)
    binned = parts["reliability"] - parts["resolution"] + parts["uncertainty"]
    assert binned == pytest.approx(parts["brier"], abs=0.01)
    assert calibration_table(np.full(30, np.nan), failed[:30], ["a"] * 30, "k")["ece"]["value"] is None


def test_traces_survive_the_disk(tmp_path):
    split = splits(PROTOCOLS["folds"], DATA.facts)[0]
    traces = judge(DATA, DETECTORS["ledger"], split, 0)
    save_traces(tmp_path / "a" / "t.npz", traces)
    again = load_traces(tmp_path / "a" / "t.npz")
    assert again.probability == traces.probability
    assert all((again.evidence[i] == traces.evidence[i]).all() for i in traces.evidence)
    assert (again.seen == traces.seen).all()
    save_traces(tmp_path / "a" / "t.npz", traces, "code")
    assert made_by(tmp_path / "a" / "t.npz", "code", split)
    assert not made_by(tmp_path / "a" / "t.npz", "other code", split)
    assert not made_by(tmp_path / "a" / "t.npz", "code", splits(PROTOCOLS["folds"], DATA.facts)[1])


def test_code_that_decides_a_fit_changes_its_digest(monkeypatch):
    """Another dial or another line of a module the fit reads; what another detector reads changes nothing."""
    before = {name: bench_fits.code_of.__wrapped__(name) for name in ("ledger", "ledger_actions", "hazard_ensemble")}
    assert len(set(before.values())) == 3
    source = bench_fits._source
    monkeypatch.setattr(bench_fits, "_source", lambda m: source(m) + "#" * m.endswith(".fit_recurrent"))
    assert bench_fits.code_of.__wrapped__("hazard_ensemble") != before["hazard_ensemble"]
    assert bench_fits.code_of.__wrapped__("ledger") == before["ledger"]


def test_a_detector_that_sees_beats_one_that_cannot():
    stored = {}
    for name in ("ledger", "permuted", "task_prior", "clock"):
        folds = [judge(DATA, DETECTORS[name], s, k) for k, s in enumerate(splits(PROTOCOLS["folds"], DATA.facts))]
        stored[name] = {"folds": folds}
    boots = bootstraps(DATA.facts, "log")
    table = {n: auc_figures(s, DATA.facts, boots, DETECTORS[n].adds_prior) for n, s in stored.items()}
    assert table["ledger"]["early_within_folds"]["low"] > 75
    assert table["clock"]["early_within_folds"]["value"] == 50
    assert table["task_prior"]["early_within_folds"]["value"] == 50
    assert abs(table["permuted"]["early_within_folds"]["value"] - 50) < 25
    controls = {n: stored[n] for n in ("clock", "task_prior")}
    claims = headline_claims(stored["ledger"], controls, DATA.facts, boots, True)
    assert claims["seen"]["shown"]
    assert claims["seen_within"]["shown"]
    assert "not shown" not in claims["seen"]["sentence"]
    assert not headline_claims(stored["permuted"], controls, DATA.facts, boots, False)["seen"]["shown"]
    assert not headline_claims(stored["task_prior"], controls, DATA.facts, boots, False)["seen"]["shown"]
    others = other_figures(stored["ledger"], DATA.facts, "early", 4.0, "k")
    assert others["ece"]["value"] < 0.2
    assert others["fpr_alpha10"]["value"] <= 0.12
    control = control_estimate(stored["permuted"]["folds"], DATA.facts, "early", 1)
    assert control.low <= 50 <= control.high


def test_leaks_are_named():
    twin = replace(SEQUENCES[0], ticket=999)
    short = replace(SEQUENCES[1], signals=SEQUENCES[1].signals[:2], hidden=None, failed=True)
    sequences = [*SEQUENCES, twin, short]
    facts = facts_of(sequences, 40)
    leaks = {leak.name: leak for leak in find_leaks(sequences, facts, [*range(len(SEQUENCES)), 0, 1000])}
    assert leaks["clock, whole episodes"].value > 95
    assert leaks["clock, whole episodes"].leaks
    assert leaks["task prior"].value > 50
    assert leaks["failures that end before the horizon"].value == 1
    assert leaks["repeated initial states"].value == 1
    assert leaks["episodes of fewer than 4 steps"].value == 1
    clean = {leak.name: leak for leak in find_leaks(SEQUENCES, DATA.facts, list(range(len(SEQUENCES))))}
    assert not clean["repeated initial states"].leaks
    assert not clean["failures that end before the horizon"].leaks
    assert len(without_short(replace(DATA, sequences=tuple(sequences), facts=facts)).sequences) == len(SEQUENCES) + 1


def test_leaks_of_one_outcome_only_are_not_numbers():
    good = [s for s in SEQUENCES if not s.failed]
    for leak in find_leaks(good, facts_of(good, 40), list(range(len(good)))):
        assert leak.value is None or leak.unit == "episodes"
        assert leak.word == ("unknown" if leak.value is None else "clean")


def test_an_explanation_adds_up_and_looks_at_nothing_later():
    train, test = SEQUENCES[:60], next(s for s in SEQUENCES[60:] if s.failed)
    ledger = fit_ledger(train, list(LOG_NAMES))
    probability = map_of(train, SEQUENCES[60:], [trace(ledger, s) for s in SEQUENCES[60:]])
    why = explain(ledger, probability, LOG_NAMES, test, 20, Reference(ledger, train))
    evidence = trace(ledger, test)[20]
    logit = probability.terms(float(evidence), test.task, 20)
    assert sum(why.terms.values()) == pytest.approx(sum(logit), abs=1e-4)
    assert set(why.terms) == {"signals", "hidden", "running_mean", "prior", "overdue", "constant"}
    assert why.signals[0][0] == "chunk_mse"
    assert len(why.nearest) == 3
    assert "last safe" in why.sentence() or "looked safe" in why.sentence()
    cut = replace(test, signals=test.signals[:21], hidden=test.hidden[:21])
    assert explain(ledger, probability, LOG_NAMES, cut, 20, Reference(ledger, train)) == why
    unknown = explain(ledger, probability, LOG_NAMES, replace(test, task="new"), 20)
    assert "prior" not in unknown.terms


def test_rules_and_importance_find_the_signal_that_matters():
    rules = learn_rules(SEQUENCES[:60], SEQUENCES[60:], LOG_NAMES)
    assert [r.kind for r in rules] == ["failure"]
    assert "chunk_mse" in rules[0].sentence()
    assert rules[0].precision > rules[0].base
    plain = [replace(s, hidden=None) for s in SEQUENCES]
    found = importance(fit_ledger(plain[:60], list(LOG_NAMES)), plain[60:], LOG_NAMES, 10, "k")
    assert max(found, key=lambda name: found[name].value) == "chunk_mse"
    assert importance(fit_ledger(plain[:60], list(LOG_NAMES)), [s for s in plain if s.failed], LOG_NAMES, 10, "k") == {}


def timed(count=40, seed=0):
    rng = np.random.default_rng(seed)
    for i, s in enumerate(log_sequences(count=count, seed=seed)):
        onset = int(rng.integers(10, 35)) if s.failed else None
        yield replace(s, onset=onset, ticket=i)


def test_time_to_failure_beside_the_clock():
    train, test = list(timed()), list(timed(seed=5))
    clock = clock_rows(train, test)

    def oracle(s):
        ahead = (
            np.full(len(s.signals), 200.0) if s.onset is None else np.maximum(s.onset - np.arange(len(s.signals)), 0)
        )
        return ahead, (ahead[:, None] <= np.array(WINDOWS)[None]).astype(float)

    perfect = model_rows(test, [oracle(s) for s in test])
    failed = [s.failed for s in test]
    c = beside_clock(perfect, clock, failed, "c_index", "k")
    assert c.model.value == 1.0
    assert 0.4 < c.clock.value < 0.95
    assert c.difference.low > 0
    b = beside_clock(perfect, clock, failed, "brier", "k")
    assert b.model.value == 0.0
    assert b.difference.high < 0


def test_the_c_index_by_hand():
    rows = TimeRows(np.array([0, 1]), np.array([0, 0]), np.array([5.0, 9.0]), np.array([3.0, 4.0]), np.zeros((2, 5)))
    ones = np.ones((1, 2), np.float32)
    assert c_index_draws(rows, ones)[0] == 1.0
    assert c_index_draws(rows._replace(predicted=np.array([4.0, 3.0])), ones)[0] == 0.0
    assert c_index_draws(rows._replace(predicted=np.array([4.0, 4.0])), ones)[0] == 0.5
