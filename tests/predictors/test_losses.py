from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import LOG_NAMES, log_sequences

from failsight.evaluation.judging import trace
from failsight.predictors.ablation import ABLATION, MENU
from failsight.predictors.fit_network import TrainOptions, _balance, _Network, _phases, fit_network
from failsight.predictors.inputs import episode_inputs
from failsight.predictors.losses import Batch, LossOptions, _contrast, loss_of, td_targets
from failsight.predictors.network import ActProbe, GruTd, MistMlp, SafeLstm, SafeMlp
from failsight.predictors.words import embed


def batch(failed, lengths, steps):
    mask = torch.zeros(len(failed), steps)
    for i, n in enumerate(lengths):
        mask[i, :n] = 1
    return Batch(
        torch.tensor(failed, dtype=torch.float32),
        mask,
        torch.zeros(len(failed), dtype=torch.long),
        torch.tensor(lengths),
        mask * torch.tensor(failed, dtype=torch.float32)[:, None],
    )


def test_td_targets_by_hand():
    p = torch.tensor([[0.2, 0.4, 0.6]])
    target = td_targets(p, batch([1], [3], 3), 0.5)
    assert target[0].tolist() == pytest.approx([0.5 * 0.4 + 0.5 * (0.5 * 0.6 + 0.5), 0.5 * 0.6 + 0.5 * 1, 1.0])
    short = td_targets(p, batch([0], [2], 3), 0.5)
    assert short[0, :2].tolist() == pytest.approx([0.2, 0.0])
    assert td_targets(p, batch([1], [3], 3), 1.0)[0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", MENU)
def test_every_loss_prefers_being_right_and_ignores_padding(name):
    options = LossOptions(**MENU[name])
    labels = batch([1, 0], [4, 2], 4)
    right = torch.tensor([[2.0, 2.0, 2.0, 2.0], [-2.0, -2.0, -2.0, -2.0]])
    memory = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    assert loss_of(right, memory, labels, options) < loss_of(-right, memory, labels, options)
    padded = right.clone()
    padded[1, 2:] = 9.0
    if options.main != "hazard":
        assert loss_of(padded, memory, labels, options) == pytest.approx(
            float(loss_of(right, memory, labels, options)), abs=1e-6
        )


def test_extras_punish_what_they_should():
    labels = batch([1, 1], [4, 4], 4)
    memory = torch.zeros(2, 4, 3)
    calm = torch.tensor([[0.0, 0.5, 1.0, 1.5]] * 2)
    wild = torch.tensor([[1.5, 0.0, 1.5, 0.0]] * 2)

    def extra(logits, **options):
        plain = loss_of(logits, memory, labels, LossOptions())
        return float(loss_of(logits, memory, labels, LossOptions(**options)) - plain)

    for name in ("variation", "curvature", "monotone"):
        assert extra(wild, **{name: 1.0}) > extra(calm, **{name: 1.0}) - 1e-6
    assert extra(calm, monotone=1.0) == pytest.approx(0)


def test_only_falls_on_failures_count():
    """p falls from 0.5 to 0.25 in one of two episodes, one pair each: 0.25 / 2 when it failed, nothing when it did not."""
    fell = torch.tensor([[0.0, -np.log(3.0)], [0.0, 0.0]])
    memory = torch.zeros(2, 2, 3)

    def hinge(failed):
        labels = batch(failed, [2, 2], 2)
        return float(
            loss_of(fell, memory, labels, LossOptions(monotone=1.0)) - loss_of(fell, memory, labels, LossOptions())
        )

    assert hinge([1, 0]) == pytest.approx(0.125, abs=1e-6)
    assert hinge([0, 1]) == pytest.approx(0, abs=1e-6)


def test_the_contrast_pulls_the_same_kind_together():
    """Two lost and two normal steps, each pair alike and square to the other: -log(e^5 / (e^5 + 2)) at temperature 0.2."""
    memory = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    assert float(_contrast(memory, batch([1, 0], [2, 2], 2))) == pytest.approx(np.log(1 + 2 * np.exp(-5)), abs=1e-6)
    mixed = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    assert float(_contrast(mixed, batch([1, 0], [2, 2], 2))) == pytest.approx(np.log(np.exp(5) + 2), abs=1e-6)


def test_the_safe_loss_is_the_running_sum_with_its_sign():
    """p = 0.5, so the sum is 0.5, 1, 1.5: mean 0.75 over two steps of a success, -1 over three of a failure; per length."""
    logits = torch.zeros(1, 3)
    good, bad = (loss_of(logits, logits, batch([f], [n], 3), LossOptions(main="safe")) for f, n in ((0, 2), (1, 3)))
    assert (float(good), float(bad)) == pytest.approx((0.75 / 2, -1.0 / 3))


def test_episodes_and_outcomes_count_alike():
    """One failure of 4 steps, two successes of 2 and 1: every episode's weights add up to 3 / (2 x number of its outcome)."""
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], np.float32)
    weights = _balance(mask, np.array([1.0, 0.0, 0.0]))
    assert weights.sum(1) == pytest.approx([1.5, 0.75, 0.75])
    assert weights[1] == pytest.approx([0.375, 0.375, 0, 0])


def test_phases_weigh_the_same():
    mask = np.ones((2, 9), np.float32)
    weights = _phases(mask, np.array([1.0, 0.0]), np.array([9, 9]))
    assert weights[0].reshape(3, 3).sum(1) == pytest.approx([3, 3, 3])
    assert weights[0].sum() == pytest.approx(weights[1].sum())


def test_a_phase_with_fewer_steps_weighs_as_much():
    """By hand: of a failure's thirds 1, 3 and 3 steps count (the first two are skipped), of a success's 9 steps all: each
    third weighs 3, so the lone early step weighs 3 and the others 1.
    """
    mask = np.ones((2, 9), np.float32)
    mask[0, :2] = 0
    weights = _phases(mask, np.array([1.0, 0.0]), np.array([9, 9]))
    assert weights[0] == pytest.approx([0, 0, 3, 1, 1, 1, 1, 1, 1])
    assert weights[1] == pytest.approx(np.ones(9))


@pytest.mark.parametrize("kind", [GruTd, SafeMlp, SafeLstm, ActProbe, MistMlp])
def test_the_numpy_step_equals_torch_on_padded_batches(kind):
    """One episode alone in NumPy and all of them padded in one torch batch give the same scores."""
    train = [replace(s, instruction=f"open the door of {s.task}") for s in log_sequences(count=12)]
    predictor = fit_network(kind, train, LOG_NAMES, TrainOptions(epochs=2))
    design = kind.design
    inputs = episode_inputs(train, predictor.arrays, design.inputs)
    longest = max(map(len, inputs))
    x = torch.from_numpy(np.stack([np.pad(v, ((0, longest - len(v)), (0, 0))) for v in inputs]))
    text = torch.from_numpy(np.stack([embed(s.instruction, design.text or 1) for s in train]))
    network = _Network(design, x.shape[2], 1, 0.0).eval()
    state = {}
    for i in range(len(design.layers) + 1):
        state |= {f"layers.{i}.weight": predictor.arrays[f"w{i}"], f"layers.{i}.bias": predictor.arrays[f"b{i}"]}
    for name, key in (("x", "weight_ih_l0"), ("h", "weight_hh_l0"), ("bx", "bias_ih_l0"), ("bh", "bias_hh_l0")):
        if design.cell != "none":
            state[f"cell.{key}"] = predictor.arrays[f"cell.{name}"]
    for part, name in (("neck", "text"), ("h", "text.h"), ("c", "text.c")):
        if design.text:
            state |= {f"start.{part}.weight": predictor.arrays[f"{name}.w"]}
            state |= {f"start.{part}.bias": predictor.arrays[f"{name}.b"]}
    network.load_state_dict({k: torch.tensor(v, dtype=torch.float32) for k, v in state.items()}, strict=False)
    with torch.no_grad():
        logits = network(x, text)[0][..., 0]
    for i, s in enumerate(train):
        expected = logits[i, : len(s.signals)].numpy()
        if design.cumulative:
            expected = (1 / (1 + np.exp(-expected))).cumsum()
        assert trace(predictor, s) == pytest.approx(expected, abs=2e-4)


def test_the_menu_is_the_ablation():
    assert list(ABLATION) == [f"loss_{name}" for name in MENU]


def mist_arrays(width=2):
    """The MIST network with weights that make its first logit the first input, doubled, minus the second."""
    first, second = np.zeros((2048, width), np.float32), np.zeros((768, 2048), np.float32)
    first[0], first[1] = (1, 0), (0, 1)
    second[0, 0] = second[1, 1] = 1
    last = np.zeros((1, 768), np.float32)
    last[0, :2] = 2, -1
    biases = {f"b{i}": np.zeros(n, np.float32) for i, n in enumerate((2048, 768, 1))}
    inputs = {"in.hidden": np.array(width), "in.width": np.array(width)}
    scale = {"in.mean": np.zeros((1, width)), "in.scale": np.ones((1, width))}
    return {"w0": first, "w1": second, "w2": last, **biases, **inputs, **scale}


@pytest.mark.parametrize("length", [0.5, 1.0])
def test_the_mist_network_reads_a_direction(length):
    """(3, 4) at any length is (0.6, 0.8): 2 x 0.6 - 0.8."""
    predictor = MistMlp(mist_arrays())
    predictor.reset("")
    risk = predictor.update(np.zeros(1, np.float32), length * np.array([3.0, 4.0], np.float32))
    assert risk.evidence == pytest.approx(0.4, abs=1e-5)
