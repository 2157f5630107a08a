"""Laws every detector keeps, and what the ledger is made of."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import LOG_COLUMNS, LOG_NAMES, log_sequences

from failsight.core.errors import BundleError, UnknownNameError
from failsight.evaluation.detection import within_auc
from failsight.evaluation.judging import trace
from failsight.predictors.blend import BlendPredictor
from failsight.predictors.dataset import permute_labels
from failsight.predictors.detector import FitData
from failsight.predictors.detectors import BLEND, CONTROLS, DETECTORS
from failsight.predictors.evidence import RunningEvidence
from failsight.predictors.find_detector import find_detector
from failsight.predictors.fit_ledger import LedgerOptions, fit_ledger, shared_weights
from failsight.predictors.ledger import LedgerPredictor
from failsight.predictors.scalars import ScalarPredictor, find_columns
from failsight.predictors.stepscale import fit_step_scale, task_offsets
from failsight.predictors.transforms import log_positive, pad, positive_columns

TRAIN = log_sequences(count=40)
LARGE = log_sequences(count=210, seed=4)
TEST = log_sequences(count=60, seed=9)
RUNNABLE = [n for n, d in DETECTORS.items() if not d.lacks(FitData(TRAIN, LOG_COLUMNS, 0))]
SUPERVISED = [n for n in RUNNABLE if DETECTORS[n].supervised]
_fitted = {}


def fitted(name):
    if name not in _fitted:
        _fitted[name] = DETECTORS[name].fit(FitData(TRAIN, LOG_COLUMNS, 0))
    return _fitted[name]


@pytest.mark.xdist_group("detectors")
@pytest.mark.parametrize("name", RUNNABLE)
def test_the_future_never_changes_the_past(name):
    """Shuffling or cutting what comes later leaves every earlier score as it was, bit for bit."""
    episode, at = TEST[1], 8
    whole = trace(fitted(name), episode)
    order = np.r_[np.arange(at), at + np.random.default_rng(0).permutation(len(episode.signals) - at)]
    shuffled = replace(episode, signals=episode.signals[order], hidden=episode.hidden[order])
    cut = replace(episode, signals=episode.signals[:at], hidden=episode.hidden[:at])
    assert (trace(fitted(name), shuffled)[:at] == whole[:at]).all()
    assert (trace(fitted(name), cut) == whole[:at]).all()


@pytest.mark.xdist_group("detectors")
@pytest.mark.parametrize("name", RUNNABLE)
def test_episode_order_changes_nothing(name):
    forward = [trace(fitted(name), s) for s in TEST[:4]]
    backward = [trace(fitted(name), s) for s in reversed(TEST[:4])]
    assert all((a == b).all() for a, b in zip(forward, reversed(backward), strict=True))


@pytest.mark.xdist_group("detectors")
@pytest.mark.parametrize("name", RUNNABLE)
def test_a_refit_is_bit_equal(name):
    again = DETECTORS[name].fit(FitData(TRAIN, LOG_COLUMNS, 0))
    assert again.arrays.keys() == fitted(name).arrays.keys()
    for key, array in again.arrays.items():
        assert np.array_equal(array, fitted(name).arrays[key]), key


@pytest.mark.xdist_group("detectors")
@pytest.mark.parametrize("name", SUPERVISED)
def test_what_is_there_is_found_and_permuted_labels_are_not(name):
    """On easy data a supervised detector ranks well within tasks; what it learns from permuted labels does not."""
    failed = np.array([s.failed for s in TEST])
    tasks = np.array([s.task for s in TEST])
    fit = DETECTORS[name].learned_part or DETECTORS[name].fit

    def score(train):
        predictor = fit(FitData(train, LOG_COLUMNS, 0))
        return within_auc(np.array([trace(predictor, s)[12] for s in TEST]), failed, tasks)

    found = score(LARGE)
    assert found > 0.75
    assert np.mean([score(permute_labels(LARGE, seed)) for seed in (1, 2, 3)]) < found - 0.15


def spoiled(sequences, value):
    """The same episodes with `value` in one step of every third: a signal, and one entry of the hidden state."""
    result = []
    for i, s in enumerate(sequences):
        signals, hidden = s.signals.copy(), s.hidden.copy()
        if i % 3 == 0:
            signals[5, LOG_NAMES.index("chunk_mse")] = value
            hidden[4, 1] = value
        result.append(replace(s, signals=signals, hidden=hidden))
    return result


@pytest.mark.xdist_group("detectors")
@pytest.mark.parametrize("name", RUNNABLE)
def test_what_is_not_finite_is_missing_in_fit_and_step_alike(name):
    """Infinity and NaN: one fit, one evidence, always a number."""
    results = []
    for value in (np.nan, np.inf):
        predictor = DETECTORS[name].fit(FitData(spoiled(TRAIN, value), LOG_COLUMNS, 0))
        evidence = [_stepped(predictor, s, value) for s in TEST[:3]]
        results.append((predictor.arrays, evidence))
    arrays, evidence = results[0]
    assert all(np.isfinite(e).all() for e in evidence)
    for other, scores in results[1:]:
        assert all(np.array_equal(other[key], arrays[key]) for key in arrays)
        assert all((a == b).all() for a, b in zip(evidence, scores, strict=True))


def _stepped(predictor, s, value):
    """Evidence of an episode whose steps were spoiled on the way in, as on a robot: nobody cleaned them before."""
    predictor.reset(s.task)
    scores = []
    for t, (signals, hidden) in enumerate(zip(s.signals, s.hidden, strict=True)):
        signals, hidden = signals.copy(), hidden.copy()
        if t == 5:
            signals[:], hidden[:2] = value, value
        scores.append(predictor.update(signals, hidden).judged)
    return np.array(scores)


@pytest.mark.parametrize("name", ["ledger", "mahalanobis", "euclidean_knn", "cosine_knn", "safe_mlp"])
def test_an_entry_beyond_float16_is_as_if_it_were_left_out(name):
    """Massive activations overflow to infinity in float16: the other entries say what they said without it."""
    rng = np.random.default_rng(0)
    small = [
        replace(s, hidden=rng.standard_normal((len(s.signals), 5)).astype(np.float16)) for s in [*LARGE, *TEST[:9]]
    ]
    for s in small:
        s.hidden[:, 1] += 2 * s.failed
    with np.errstate(over="ignore"):
        huge = [replace(s, hidden=np.c_[s.hidden, np.full(len(s.hidden), 1e5)].astype(np.float16)) for s in small]
    if name == "safe_mlp":  # another width starts from other random weights: compare what it tells apart
        failed = np.array([s.failed for s in small[-9:]])
        for part in (small, huge):
            predictor = DETECTORS[name].fit(FitData(part[:210], LOG_COLUMNS, 0))
            assert within_auc(np.array([trace(predictor, s)[10] for s in part[210:]]), failed, np.zeros(9)) == 1.0
        return
    without, beside = (DETECTORS[name].fit(FitData(part[:210], LOG_COLUMNS, 0)) for part in (small, huge))
    for a, b in zip(small[210:], huge[210:], strict=True):
        assert trace(beside, b) == pytest.approx(trace(without, a), abs=2e-3)


def test_the_blend_by_hand():
    """Running mean of raw values 1, 3 with mean 1 and spread 0.5: 0, then (2 - 1) / 0.5 = 2; one member, so nothing shrinks.
    Two such members: 2 * 2 / sqrt(2).
    """
    scalar = {"columns": np.array([0]), "log": np.array([False]), "usual": np.array([0.0]), "scale": np.array([1.0])}
    one = {**{f"running_mean/{k}": v for k, v in scalar.items()}, "scale.running_mean": np.array([1.0, 0.5])}
    predictor = BlendPredictor(one)
    scores = [predictor.update(np.array([value], np.float32), None).evidence for value in (1.0, 3.0)]
    assert scores == pytest.approx([0.0, 2.0])
    assert predictor.shown == pytest.approx({"running_mean": 2.0})
    with pytest.raises(BundleError, match="no member"):
        BlendPredictor(scalar)


def test_the_blend_adds_up_over_the_root_of_its_members():
    blend = fitted("blend")
    assert tuple(blend.members) == ("running_mean", "ledger", "hazard")
    raw = {m: trace(blend.members[m], TEST[0]) for m in blend.members}
    raw["hazard"] = np.log(raw["hazard"] / (1 - raw["hazard"]))
    scaled = [(raw[m] - blend.arrays[f"scale.{m}"][0]) / blend.arrays[f"scale.{m}"][1] for m in raw]
    assert trace(blend, TEST[0]) == pytest.approx(sum(scaled) / np.sqrt(3), abs=1e-6)
    assert blend.ledger_share == pytest.approx(1 / blend.arrays["scale.ledger"][1] / np.sqrt(3))


def test_the_blend_standardises_on_successes_nobody_was_fitted_on():
    """Mean and spread of each member over all steps of the successes that were held out are 0 and 1."""
    blend = DETECTORS["blend"].fit(FitData(TRAIN, LOG_COLUMNS, 0, TEST[:12]))
    good = [s for s in TEST[:12] if not s.failed]
    for member, predictor in blend.members.items():
        raw = np.concatenate([trace(predictor, s) for s in good])
        raw = np.log(raw / (1 - raw)) if member == "hazard" else raw
        assert blend.arrays[f"scale.{member}"] == pytest.approx([raw.mean(), raw.std()])
        alone = DETECTORS[BLEND[member]].fit(FitData(TRAIN, LOG_COLUMNS, 0))
        assert all(np.array_equal(alone.arrays[k], predictor.arrays[k]) for k in alone.arrays)


def test_without_torch_running_mean_and_ledger_remain(monkeypatch):
    monkeypatch.setattr("failsight.predictors.detector.find_spec", lambda name: None)
    blend = DETECTORS["blend"].fit(FitData(TRAIN, LOG_COLUMNS, 0))
    assert tuple(blend.members) == ("running_mean", "ledger")
    assert "torch" in DETECTORS["hazard_ensemble"].lacks(FitData(TRAIN, LOG_COLUMNS, 0))


def test_a_missing_value_of_a_scalar_counts_as_the_usual_one():
    """By hand: columns not positive, mean 2, spread 1; steps 3, inf, 3 give 1, (1 + 0) / 2, (1 + 0 + 1) / 3."""
    arrays = {"columns": np.array([0]), "log": np.array([False]), "usual": np.array([2.0]), "scale": np.array([1.0])}
    predictor = ScalarPredictor(arrays)
    scores = [predictor.update(np.array([value], np.float32), None).evidence for value in (3.0, np.inf, 3.0)]
    assert scores == pytest.approx([1.0, 0.5, 2 / 3])


@pytest.mark.xdist_group("detectors")
@pytest.mark.parametrize("name", ["rnd", "logpzo"])
def test_novelty_rises_far_from_successes(name):
    strange = replace(TEST[0], hidden=TEST[0].hidden + np.float16(4))
    assert trace(fitted(name), strange)[-1] > 2 * trace(fitted(name), TEST[0])[-1]


def test_the_controls_know_nothing_of_the_episode():
    for name in ("clock", "task_clock", "task_prior"):
        a, b = (trace(fitted(name), replace(TEST[0], signals=x)) for x in (TEST[0].signals, TEST[0].signals * 5))
        assert (a == b).all()
    assert set(CONTROLS) <= set(DETECTORS)
    assert not any(DETECTORS[name].adds_prior for name in CONTROLS)


def test_what_a_log_lacks_is_said():
    bare = [replace(s, hidden=None) for s in TRAIN]
    data = FitData(bare, LOG_COLUMNS[:1], 0)
    assert DETECTORS["safe_lstm"].lacks(data) == "hidden states"
    assert DETECTORS["stac"].lacks(data) == "stac"
    assert DETECTORS["ledger"].lacks(data) == ""
    silent = [replace(s, signals=np.where(np.arange(4) == 1, np.nan, s.signals)) for s in TRAIN]
    assert DETECTORS["running_mean"].lacks(FitData(silent, LOG_COLUMNS, 0)) == "chunk_mse or overlap"
    with pytest.raises(UnknownNameError, match="safe_mlp"):
        find_detector("safe_mpl")


def test_a_hidden_state_of_another_size_is_refused():
    for name in ("ledger", "safe_lstm", "cosine_knn", "rnd"):
        predictor = fitted(name)
        predictor.reset("task_0")
        with pytest.raises(BundleError, match="size 12; it got 5"):
            predictor.update(TEST[0].signals[0], TEST[0].hidden[0][:5])
        with pytest.raises(BundleError, match=r"not an? |no array"):
            type(predictor)({})


def test_side_by_side_equals_one_by_one():
    """The batch form of the running evidence is the streaming one; padding after an episode changes nothing before."""
    z = np.random.default_rng(0).standard_normal((5, 20, 3))
    batch = RunningEvidence((5, 3), 10.0, energy=True)
    alone = [RunningEvidence((3,), 10.0, energy=True) for _ in range(5)]
    for t in range(20):
        rows = batch.update(z[:, t])
        assert (rows == np.stack([a.update(z[i, t]) for i, a in enumerate(alone)])).all()


def test_running_evidence_starts_at_nothing_and_is_shrunken():
    stream = RunningEvidence((1,), 25.0, energy=True)
    first = stream.update(np.array([2.0]))
    assert abs(first[0]) < 0.4 * 2 / 1
    assert first[0] == pytest.approx(5 * 2 / 26)


def test_step_scale_removes_what_is_usual_at_a_step():
    values = np.random.default_rng(0).standard_normal((60, 12, 2)) + np.arange(12)[None, :, None]
    scale = fit_step_scale(values, 3)
    z = np.stack([scale.apply(values[:, t], t) for t in range(12)], 1)
    assert abs(z.mean()) < 0.1
    assert 0.8 < z.std() < 1.2
    offsets, own = task_offsets(values - values.mean(), np.array(["a", "b"] * 30))
    assert offsets["a"].shape == (12, 2)
    assert own.shape == values.shape


def test_an_episode_does_not_explain_itself_away():
    """Leave-one-out offsets: changing one training episode leaves its own offset alone."""
    values = np.zeros((4, 3, 1))
    _, before = task_offsets(values, np.array(["a"] * 4))
    values[0] += 10
    _, after = task_offsets(values, np.array(["a"] * 4))
    assert (after[0] == before[0]).all()
    assert (after[1] != before[1]).all()


def test_positive_columns_are_found_from_the_data():
    raw = pad([np.array([[0.1, -1, 2], [0.5, 1, 3], [9.0, 0, 0]], np.float32)])
    assert positive_columns(raw).tolist() == [True, False, False]


def test_a_column_that_is_ever_negative_keeps_its_sign():
    """Its logarithm would throw away every value below 0; whole numbers are counts."""
    raw = pad([np.array([[-0.5, 0.0, 1.0], [1.2, 0.25, 2.0], [0.3, 0.5, 4.0]], np.float32)])
    assert positive_columns(raw).tolist() == [False, True, False]
    assert log_positive(raw[0], positive_columns(raw))[:, 0] == pytest.approx([-0.5, 1.2, 0.3])
    assert log_positive(raw[0], positive_columns(raw))[1, 1] == pytest.approx(np.log(0.2501))


def test_the_terms_add_up_to_the_evidence():
    ledger = fitted("ledger")
    assert isinstance(ledger, LedgerPredictor)
    assert ledger.members == ("signals", "hidden", "running_mean")
    ledger.reset("task_1")
    terms = [ledger.terms(s, h) for s, h in zip(TEST[0].signals, TEST[0].hidden, strict=True)]
    ledger.reset("task_1")
    risks = [ledger.update(s, h) for s, h in zip(TEST[0].signals, TEST[0].hidden, strict=True)]
    assert [sum(t.values()) for t in terms] == pytest.approx([r.evidence for r in risks])
    assert np.isnan(risks[0].p_fail)


def test_nan_constant_and_missing_inputs_carry_no_evidence():
    broken = [replace(s, signals=np.c_[s.signals, np.full((len(s.signals), 2), [np.nan, 7.0])]) for s in TRAIN]
    ledger = fit_ledger(broken, [*LOG_NAMES, "never", "constant"])
    assert ledger.arrays["signal.columns"].tolist() == [0, 1, 2, 3]
    ledger.reset("task_0")
    assert np.isfinite(ledger.update(np.full(6, np.nan), TEST[0].hidden[0]).evidence)
    only_nan = [replace(s, signals=np.full_like(s.signals, np.nan)) for s in TRAIN]
    assert fit_ledger(only_nan, list(LOG_NAMES)).members == ("hidden",)


def test_shared_weights_are_those_of_one_source_when_there_is_one():
    options = LedgerOptions(only=LOG_NAMES)
    own = fit_ledger(TRAIN, list(LOG_NAMES), options)
    assert np.allclose(shared_weights([(TRAIN, list(LOG_NAMES))], options), own.arrays["member.signal_weights"])


def test_reversals_add_up_and_the_others_take_the_first():
    names = ["reversals_x", "chunk_mse", "reversals_z", "overlap"]
    assert find_columns("reversals", names) == [0, 2]
    assert find_columns("running-mean", names) == [1]
    assert find_columns("stac", names) == []


def test_token_columns_are_used_where_a_log_has_them():
    columns = [replace(c, name=n) for c, n in zip(LOG_COLUMNS, ("token_nll", "token_entropy", "a", "b"), strict=True)]
    data = FitData(TRAIN, tuple(columns), 0)
    for name in ("token_probability", "token_entropy"):
        assert DETECTORS[name].lacks(data) == ""
    scores = trace(DETECTORS["token_entropy"].fit(data), TEST[0])
    louder = replace(TEST[0], signals=TEST[0].signals * np.array([1, 3, 1, 1], np.float32))
    assert (trace(DETECTORS["token_entropy"].fit(data), louder) > scores).all()
