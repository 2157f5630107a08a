from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import recurrent_arrays
from hazards import survival

from failsight.core.errors import BundleError, CalibrationError, EpisodeDataError
from failsight.evaluation.detection import auc
from failsight.predictors.dataset import FitSplit, LabelledSequence, permute_labels, split_sequences
from failsight.predictors.features import Whitening
from failsight.predictors.fit_mlp import fit_mlp, positive_weights, salus_loss
from failsight.predictors.fit_recurrent import (
    Member,
    RecurrentOptions,
    fit_recurrent,
    loss_of,
    merge_members,
    pad,
    type_weights,
)
from failsight.predictors.hazard import BINS, SURVIVES, bin_labels, edges_for
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.signals.bank import SIGNAL_NAMES

QUICK = RecurrentOptions(members=1, units=16, epochs=30, batch=16)


def make_sequences(count=80, steps=40, informative=True, seed=0):
    """Failing episodes drift in one signal and one hidden entry from a random onset on."""
    rng = np.random.default_rng(seed)
    sequences = []
    for i in range(count):
        failed = i % 3 == 0
        onset = int(rng.integers(15, 30)) if failed else None
        signals = rng.random((steps, len(SIGNAL_NAMES))).astype(np.float32)
        hidden = rng.standard_normal((steps, 6)).astype(np.float16)
        if failed and informative:
            signals[:, 1] += 0.8
            hidden[:, 0] += 1.5
        time = np.full(steps, np.inf) if onset is None else np.maximum(onset - np.arange(steps), 0).astype(float)
        sequences.append(
            LabelledSequence(
                ticket=i,
                task=f"task{i % 2}",
                condition="none",
                signals=signals,
                hidden=hidden,
                failed=failed,
                bins=bin_labels(time),
                kind=i % 4 if failed else -1,
                dimension=np.zeros((steps, 4), bool),
                onset=onset,
            )
        )
    return sequences


def scores_at(predictor, sequences, step):
    values = []
    for s in sequences:
        predictor.reset(s.task)
        for t in range(step + 1):
            risk = predictor.update(s.signals[t], s.hidden[t])
        values.append(risk.p_fail)
    return np.array(values)


def test_p_fail_and_time_to_failure_come_from_one_hazard():
    hazard = np.array([0.0, 0.5, 0.0, 0.0, 0.0, 1.0])
    p_fail, time = survival(hazard)
    assert p_fail == pytest.approx(1.0)
    assert time == pytest.approx(0.5 * 7.5 + 0.5 * 110)
    assert survival(np.zeros(BINS)).p_fail == 0
    assert np.isnan(survival(np.zeros(BINS)).time_to_failure)
    assert bin_labels(np.array([0, 4.9, 5, 79, 80, np.inf])).tolist() == [0, 0, 1, 4, 5, SURVIVES]


def test_the_numpy_step_equals_torch():
    torch.manual_seed(0)
    member = Member(inputs=len(SIGNAL_NAMES) + 6, units=16, actions=4, dropout=0.0).eval()
    sequences = make_sequences(count=4)
    whitening = Whitening.fit(
        np.concatenate([s.signals for s in sequences]), np.concatenate([s.hidden for s in sequences])
    )
    from failsight.predictors.fit_recurrent import _export

    predictor = RecurrentPredictor(_export([member], whitening))
    data = pad(sequences, whitening, 1.0)
    with torch.no_grad():
        out = member(data.x)
    for i, sequence in enumerate(sequences):
        predictor.reset("")
        for t in range(len(sequence.signals)):
            risk = predictor.update(sequence.signals[t], sequence.hidden[t])
            hazard = torch.sigmoid(out[i, t, :BINS]).double().numpy()
            assert risk.p_fail == pytest.approx(survival(hazard).p_fail, abs=2e-5)
            assert risk.dimension == pytest.approx(torch.sigmoid(out[i, t, BINS + 4 :]).numpy(), abs=2e-5)


def test_batching_and_padding_change_nothing():
    sequences = make_sequences(count=3)
    shorter = [
        replace(s, signals=s.signals[:n], hidden=s.hidden[:n], bins=s.bins[:n], dimension=s.dimension[:n])
        for s, n in zip(sequences, (40, 25, 10), strict=True)
    ]
    whitening = Whitening.fit(
        np.concatenate([s.signals for s in sequences]), np.concatenate([s.hidden for s in sequences])
    )
    member = Member(len(whitening.mean), 16, 4, 0.0).eval()
    with torch.no_grad():
        together = member(pad(shorter, whitening, 1.0).x)
        for i, s in enumerate(shorter):
            alone = member(pad([s], whitening, 1.0).x)[0]
            assert torch.allclose(together[i, : len(s.signals)], alone, atol=1e-6)


def test_types_are_learned_around_the_onset_and_count_alike():
    """A collision at step 45 of 50: 5 steps at 0.1, 45 at 1, together 45.5; two drops share what one collision has."""

    def episode(kind, onset, steps, **other):
        return replace(make_sequences(count=1, steps=steps)[0], kind=kind, onset=onset, **other)

    weights = type_weights([episode(0, 45, 50), episode(1, None, 4), episode(1, 2, 3), episode(-1, None, 9)])
    assert weights.shape == (4, 50)
    assert weights.sum(1) == pytest.approx([1, 0.5, 0.5, 0])
    assert weights[0, [4, 5, 49]] == pytest.approx([0.1 / 45.5, 1 / 45.5, 1 / 45.5])
    assert weights[1, :5] == pytest.approx([0.125] * 4 + [0])
    late = type_weights([episode(2, 50, 100)])[0]
    assert late[[9, 10, 54, 55]] == pytest.approx(np.array([0.1, 1, 1, 0.1]) / (45 + 5.5))
    slow = type_weights([episode(2, 50, 100, edges=edges_for(5.0, 160))])[0]
    assert (slow > 0.05).nonzero()[0].tolist() == list(range(40, 51))  # 5 Hz: 10 steps before, the onset itself


def test_the_type_loss_is_half_a_cross_entropy_where_it_counts():
    """Uniform answers cost ln 4 against certain ones, whatever is said where the weight is 0 or on a success."""
    episodes = make_sequences(count=6)
    data = pad(episodes, Whitening.fit(np.concatenate([s.signals for s in episodes]), None), 1.0)
    out = torch.zeros(6, 40, BINS + 4 + 4)
    certain, nonsense = out.clone(), out.clone()
    for i, s in enumerate(episodes):
        if s.failed:
            certain[i, :, BINS + s.kind] = 50.0
    nonsense[1, :, BINS] = 50.0
    plain = float(loss_of(out, data))
    assert plain - float(loss_of(certain, data)) == pytest.approx(0.5 * np.log(4), rel=1e-5)
    assert float(loss_of(nonsense, data)) == pytest.approx(plain)


def test_it_learns_what_is_there_and_permuted_labels_do_not():
    train, test = make_sequences(seed=0), make_sequences(seed=1)
    failed = np.array([s.failed for s in test])
    real = fit_recurrent(train, train[:20], QUICK)
    assert auc(scores_at(real, test, 10), failed) > 0.9
    controls = [
        auc(scores_at(fit_recurrent(permute_labels(train, s), train[:20], replace(QUICK, seed=s)), test, 10), failed)
        for s in range(4)
    ]
    assert abs(np.mean(controls) - 0.5) < 0.3


def test_random_signals_teach_nothing():
    train, test = make_sequences(informative=False), make_sequences(informative=False, seed=1)
    fitted = fit_recurrent(train, train[:20], QUICK)
    failed = np.array([s.failed for s in test])
    assert 0.3 < auc(scores_at(fitted, test, 10), failed) < 0.7


def test_a_refit_is_bit_equal():
    train = make_sequences(count=30)
    first, second = (fit_recurrent(train, train[:6], QUICK) for _ in range(2))
    assert all(np.array_equal(first.arrays[n], second.arrays[n]) for n in first.arrays)


def test_members_fitted_apart_make_the_same_ensemble():
    train, options = make_sequences(count=30), replace(QUICK, members=2, epochs=3)
    whole = fit_recurrent(train, train[:6], options)
    parts = [fit_recurrent(train, train[:6], options, indices=(i,)) for i in (0, 1)]
    merged = merge_members(parts)
    assert all(np.array_equal(whole.arrays[n], merged.arrays[n]) for n in whole.arrays)


def test_the_salus_network_has_4868_parameters():
    fitted = fit_mlp(make_sequences(count=12), make_sequences(count=6, seed=2), epochs=1)
    assert sum(fitted.arrays[f"{kind}{layer}"].size for kind in "wb" for layer in range(3)) == 4868


def test_the_salus_loss_weighs_rare_types_up():
    """10 failing steps of 100: weight 9, so a network that sees nothing says 0.5 and not 0.1; ln 2 is that loss per step."""
    y = torch.zeros(100, 4)
    y[:10, 0] = 1
    weight = positive_weights(y)
    assert weight.tolist() == [9, 50, 50, 50]
    logits = torch.zeros(100, 4)
    expected = np.log(2) * (9 * 10 + 90 + 3 * 100) / 400
    assert float(salus_loss(logits, y, weight)) == pytest.approx(expected, rel=1e-5)


def test_the_salus_fit_weighs_rare_types_up():
    blind = [replace(s, signals=np.zeros_like(s.signals), kind=min(s.kind, 0)) for s in make_sequences(count=30)]
    share = np.mean([t >= s.onset - 20 if s.failed else False for s in blind for t in range(len(s.signals))])
    said = fit_mlp(blind, (), epochs=60).update(blind[0].signals[0], None).type
    assert share < 0.35
    assert said[0] == pytest.approx(0.5, abs=0.1)


def test_what_was_never_labelled_with_a_type_is_told_none():
    sequences = [replace(s, kind=-1) for s in make_sequences(count=12, steps=30)]
    options = RecurrentOptions(members=2, epochs=1)
    parts = [fit_recurrent(sequences, (), options, indices=(i,)) for i in range(2)]
    for predictor in (fit_recurrent(sequences, (), options), merge_members(parts)):
        risk = predictor.update(sequences[0].signals[0], sequences[0].hidden[0])
        assert np.isfinite(risk.p_fail)
        assert np.isnan(risk.type).all()
        assert np.isnan(risk.imminent)
    typed = fit_recurrent(make_sequences(count=12, steps=30), (), options)
    assert np.isfinite(typed.update(sequences[0].signals[0], sequences[0].hidden[0]).type).all()


def test_splits_are_disjoint_stratified_and_keyed():
    sequences = make_sequences()
    split = split_sequences(sequences, seed=1)
    parts = [{s.ticket for s in part} for part in (split.train, split.validate, split.calibrate)]
    assert set.union(*parts) == {s.ticket for s in sequences}
    assert sum(map(len, parts)) == len(sequences)
    assert all(any(s.failed for s in part) for part in (split.train, split.validate, split.calibrate))
    again = split_sequences(sequences[::-1], seed=1)
    assert isinstance(again, FitSplit)


def test_too_few_failures_are_refused_with_a_hint():
    with pytest.raises(CalibrationError, match="Collect more episodes"):
        split_sequences([s for s in make_sequences() if not s.failed], seed=0)


def test_whitening_masks_what_is_missing():
    signals = np.full((10, len(SIGNAL_NAMES)), 2.0)
    signals[:, 0] = np.nan
    whitening = Whitening.fit(signals, None)
    assert np.isfinite(whitening.mean).all()
    assert (whitening.apply(np.full(len(SIGNAL_NAMES), np.nan), None) == 0).all()
    assert (np.abs(whitening.apply(np.full(len(SIGNAL_NAMES), np.inf), None)) <= 5).all()
    with pytest.raises(EpisodeDataError, match="size 3"):
        Whitening.fit(np.random.rand(5, len(SIGNAL_NAMES)), np.random.rand(5, 3)).apply(signals[0], np.zeros(4))


def test_a_wrong_hidden_size_is_refused():
    predictor = RecurrentPredictor(recurrent_arrays(hidden=6))
    with pytest.raises(BundleError, match="size 6; it got 5"):
        predictor.update(np.zeros(len(SIGNAL_NAMES)), np.zeros(5))
    with pytest.raises(BundleError, match="got none"):
        predictor.update(np.zeros(len(SIGNAL_NAMES)), None)


def test_nan_in_the_hidden_state_gives_a_finite_risk():
    predictor = RecurrentPredictor(recurrent_arrays(hidden=6))
    risk = predictor.update(np.zeros(len(SIGNAL_NAMES)), np.full(6, np.nan))
    assert 0 <= risk.p_fail <= 1
