import numpy as np
import pytest
import torch
from conftest import LOG_NAMES, log_sequences

from failsight.evaluation.judging import trace
from failsight.predictors.ablation import ABLATION, MENU
from failsight.predictors.fit_network import TrainOptions, _Network, _phases, fit_network
from failsight.predictors.inputs import episode_inputs
from failsight.predictors.losses import Batch, LossOptions, loss_of, td_targets
from failsight.predictors.network import ActProbe, GruTd, SafeLstm, SafeMlp


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


def test_phases_weigh_the_same():
    mask = np.ones((2, 9), np.float32)
    weights = _phases(mask, np.array([1.0, 0.0]), np.array([9, 9]))
    assert weights[0].reshape(3, 3).sum(1) == pytest.approx([3, 3, 3])
    assert weights[0].sum() == pytest.approx(weights[1].sum())


@pytest.mark.parametrize("kind", [GruTd, SafeMlp, SafeLstm, ActProbe])
def test_the_numpy_step_equals_torch_on_padded_batches(kind):
    """One episode alone in NumPy and all of them padded in one torch batch give the same scores."""
    train = log_sequences(count=12)
    predictor = fit_network(kind, train, LOG_NAMES, TrainOptions(epochs=2))
    design = kind.design
    inputs = episode_inputs(train, predictor.arrays, design.inputs)
    longest = max(map(len, inputs))
    x = torch.from_numpy(np.stack([np.pad(v, ((0, longest - len(v)), (0, 0))) for v in inputs]))
    names = sorted({s.task for s in train})
    network = _Network(design, x.shape[2], 1, len(names), 0.0).eval()
    state = {}
    for i in range(len(design.layers) + 1):
        state |= {f"layers.{i}.weight": predictor.arrays[f"w{i}"], f"layers.{i}.bias": predictor.arrays[f"b{i}"]}
    for name, key in (("x", "weight_ih_l0"), ("h", "weight_hh_l0"), ("bx", "bias_ih_l0"), ("bh", "bias_hh_l0")):
        if design.cell != "none":
            state[f"cell.{key}"] = predictor.arrays[f"cell.{name}"]
    if design.task_state:
        state["start.weight"] = np.stack([*(predictor.arrays[f"start.{n}"] for n in names), np.zeros(design.units)])
    network.load_state_dict({k: torch.tensor(v, dtype=torch.float32) for k, v in state.items()}, strict=False)
    with torch.no_grad():
        logits = network(x, torch.tensor([names.index(s.task) for s in train]))[0][..., 0]
    for i, s in enumerate(train):
        expected = logits[i, : len(s.signals)].numpy()
        if design.cumulative:
            expected = (1 / (1 + np.exp(-expected))).cumsum()
        assert trace(predictor, s) == pytest.approx(expected, abs=2e-4)


def test_the_menu_is_the_ablation():
    assert list(ABLATION) == [f"loss_{name}" for name in MENU]
