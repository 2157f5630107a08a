"""Early stopping looks only at episodes that were set aside."""

import numpy as np
import pytest
from conftest import LOG_NAMES, log_sequences

from failsight.predictors import fit_network as module
from failsight.predictors.early_stop import Stopping, early_auc, quarter_lengths, set_aside
from failsight.predictors.fit_network import TrainOptions, fit_network
from failsight.predictors.network import SignalMlp


def test_a_share_of_every_task_and_outcome_is_set_aside():
    train = log_sequences(count=300)
    kept, aside = set_aside(train, 0)
    assert sorted([*kept, *aside]) == list(range(300))
    assert len(aside) == pytest.approx(45, abs=4)
    rate = np.mean([s.failed for s in train])
    assert np.mean([train[i].failed for i in aside]) == pytest.approx(rate, abs=0.06)
    assert np.array_equal(set_aside(train, 0).aside, aside)


def test_nothing_is_set_aside_from_a_few():
    kept, aside = set_aside(log_sequences(count=60), 0)
    assert len(kept) == 60
    assert len(aside) == 0


def test_the_early_ranking_by_hand():
    """Up to their ends the rows reach 0.2, 0.9 and 0.5; of two pairs (failure 0.5) one is right. The 7 lies behind an end."""
    scores = np.array([[0.1, 0.2, 7.0], [0.9, 0.0, 0.0], [0.4, 0.5, 0.0]])
    assert early_auc(scores, np.array([0, 0, 1]), np.array([2, 1, 2])) == pytest.approx(0.5)
    episodes = log_sequences(count=9)
    longest = max(len(s.signals) for s in episodes if s.task == "task_0")
    assert quarter_lengths(episodes)["task_0"] == round(longest / 4)


def test_the_best_epoch_is_kept_and_patience_ends_a_fit(monkeypatch):
    """Rankings 0.6, 0.8, 0.7, 0.7 at epochs 1 to 4 with patience 2: four epochs, and the weights of the second."""
    train, seen, kept = log_sequences(count=300), iter((0.6, 0.8, 0.7, 0.7)), []

    def ranking(network, look):
        kept.append(network.layers[-1].weight.detach().numpy().copy())
        return next(seen)

    monkeypatch.setattr(module, "_ranking", ranking)
    fitted = fit_network(SignalMlp, train, LOG_NAMES, TrainOptions(epochs=50, stopping=Stopping(every=1, patience=2)))
    assert len(kept) == 4
    assert np.array_equal(fitted.arrays["w2"], kept[1])


def test_a_fit_without_enough_to_set_aside_has_its_own_length(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "_ranking", lambda *_: pytest.fail("nothing was set aside"))
    real = module._step_loss
    monkeypatch.setattr(module, "_step_loss", lambda *a: calls.append(1) or real(*a))
    fit_network(
        SignalMlp, log_sequences(count=20), LOG_NAMES, TrainOptions(epochs=50, stopping=Stopping(patience=5, blind=3))
    )
    assert len(calls) == 3
