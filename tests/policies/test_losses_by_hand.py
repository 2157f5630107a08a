"""Every term of what a policy learns from, against a value worked out by hand: none can go missing unseen."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lattice_data import (
    WORDS,
    action_spec,
    demonstrations,
    make_config,
    make_data,
    observation_spec,
    save_family,
)

from failsight.core.errors import EpisodeDataError, SpecMismatchError
from failsight.core.rng import keyed_rng
from failsight.core.types import EpisodeKey, Task
from failsight.episodes.demonstrations import save_demonstrations
from failsight.policies.vla.auxiliary import auxiliary_error
from failsight.policies.vla.backbone import VLMBackbone
from failsight.policies.vla.design import AuxiliaryConfig, BackboneConfig, HistoryConfig
from failsight.policies.vla.ensemble import EnsembleHead, bootstrap
from failsight.policies.vla.failure_head import Foresight, failure_error
from failsight.policies.vla.heads import FlowHead, Loss
from failsight.policies.vla.model import VLAModel
from failsight.policies.vla.normalise import Normaliser, statistics
from failsight.policies.vla.streaming import VLAPolicy
from failsight.policies.vla.tiny_backbone import TinyBackbone
from failsight.training.augment import augment
from failsight.training.options import Augment
from failsight.training.windows import Windows

NAN, LN2 = float("nan"), math.log(2)
NO_AUGMENT = Augment(shift_px=0, gain=0, tint=0, offset=0, state_noise=0, state_dropout=0, paraphrase=0, reset=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "set", size=7)


def row(*values):
    return torch.tensor([values], dtype=torch.float32)


def test_a_failure_head_learns_three_things():
    """Cross-entropy of a logit z and label 1 is ln(1 + e^-z); Huber is d^2/2 below 1 and |d| - 1/2 above."""
    said = Foresight(fails=row(0.0, 2.0), left=row(0.0, 0.5), replan=row(0.0, -1.0))
    none = row(NAN, NAN)
    p_fail = (LN2 + math.log(1 + math.exp(-2))) / 2
    assert failure_error(said, row(1, 1), none, none, 0.5, None).item() == pytest.approx(p_fail, rel=1e-6)
    # 2 steps of 0.5 s are 1 s: log(1 + 1) = ln 2 against 0, and e^2 - 1 seconds are 2 against 0.5
    left = (LN2**2 / 2 + (1.5 - 0.5)) / 2
    steps = row(2, (math.exp(2) - 1) / 0.5)
    assert failure_error(said, none, none, steps, 0.5, None).item() == pytest.approx(left, rel=1e-6)
    replan = (LN2 + math.log(1 + math.exp(1))) / 2
    assert failure_error(said, none, row(1, 1), none, 0.5, None).item() == pytest.approx(replan, rel=1e-6)
    every = failure_error(said, row(1, 1), row(1, 1), steps, 0.5, None).item()
    assert every == pytest.approx(p_fail + left + replan, rel=1e-6)
    known = failure_error(said, row(1, NAN), row(NAN, 1), none, 0.5, None).item()  # unknown labels count for nothing
    assert known == pytest.approx(LN2 + math.log(1 + math.exp(1)), rel=1e-6)


def test_the_gripper_is_learnt_beside_the_arm(data):
    """Six arm dimensions off by 0.5 cost 0.125 each by Huber; a gripper logit of 0 costs ln 2."""
    config = replace(make_config(data, "tiny", "", "fc", "one-step", "full"), gripper_ratio=0.3)
    predicted, target = torch.zeros(1, 1, 1, 7), torch.full((1, 1, 1, 7), 0.5)
    for closed in (1.0, -1.0):
        target[..., 6] = closed
        assert Loss(config)(predicted, target).item() == pytest.approx(0.125 + 0.3 * LN2, rel=1e-6)
    predicted[..., 6] = 2.0
    open_ = Loss(config)(predicted, target).item()  # says closed (logit 2), is open: ln(1 + e^2)
    assert open_ == pytest.approx(0.125 + 0.3 * math.log(1 + math.exp(2)), rel=1e-6)
    mse, l1 = (Loss(replace(config, arm_loss=kind))(predicted * 0, target).item() for kind in ("mse", "l1"))
    assert (mse, l1) == pytest.approx((0.25 + 0.3 * LN2, 0.5 + 0.3 * LN2), rel=1e-6)


def test_older_frames_weigh_less(data):
    """Window 3, decay 0.5, chunk 2, at the end of an episode: ages 2, 1, 0 weigh 1/4, 1/2, 1; the last frame's second
    action lies behind the end and weighs nothing."""
    config = make_config(data, "tiny", "", "lstm", "policy-head", "full")
    config = replace(config, history=HistoryConfig(kind="policy-head", window=3, stride=1, decay=0.5))
    windows = Windows(data, config, (0,), None)
    batch = windows.batch(np.array([9]), None)  # the last of ten frames
    assert batch.weight[0].tolist() == [[0.25, 0.25], [0.5, 0.5], [1.0, 0.0]]
    assert windows.batch(np.array([1]), None).weight[0].tolist() == [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]
    model = VLAModel(config)
    errors = torch.tensor([[[8.0, 4.0], [2.0, 1.0], [3.0, 100.0]]])
    model._action_error = lambda *_: errors
    loss = model(batch)["action"].item()  # (8/4 + 4/4 + 2/2 + 1/2 + 3) / (1/4 + 1/4 + 1/2 + 1/2 + 1)
    assert loss == pytest.approx(7.5 / 2.5)


def test_actions_are_scaled_by_their_1st_and_99th_percentile():
    """Of 0, 1, ..., 100 these are 1 and 99: the middle is 50, half the range is 49."""
    values = np.arange(101.0)[:, None]
    table = statistics(values, values)["action"]
    assert (table["q01"], table["q99"], table["min"], table["max"]) == ([1.0], [99.0], [0.0], [100.0])
    keep, points = np.zeros(1, bool), np.array([[1.0], [50.0], [99.0], [100.0]])
    free = Normaliser("q01q99", table, False, 0.0, keep)
    np.testing.assert_allclose(free.forward(points)[:, 0], [-1, 0, 1, 50 / 49], rtol=1e-6)
    np.testing.assert_allclose(free.backward(np.array([[-1.0], [1.0]]))[:, 0], [1, 99], rtol=1e-6)
    clipped = Normaliser("q01q99", table, True, 0.0, keep)
    np.testing.assert_allclose(clipped.forward(points)[:, 0], [-1, 0, 1, 1], rtol=1e-6)
    widest = Normaliser("min-max", table, False, 0.0, keep)
    np.testing.assert_allclose(widest.forward(points)[:, 0], [-0.98, 0, 0.98, 1], rtol=1e-6)


def test_action_tokens_leave_the_last_ten_rows_of_a_vocabulary_alone(tmp_path):
    """Special tokens live at the very end: with N words the 256 bins are rows N - 266 to N - 11."""
    folder = save_family("llava", tmp_path / "llava")
    backbone = VLMBackbone(BackboneConfig(family="llava", source=str(folder), tuning="frozen"), 1, True)
    words = min(len(backbone.tokenizer), backbone.model.config.get_text_config().vocab_size)
    assert backbone._bin_ids == list(range(words - 266, words - 10))


def test_actions_get_noise_and_the_gripper_none(data):
    config = make_config(data, "tiny", "", "fc", "one-step", "full", chunk=5)
    windows = Windows(data, config, (0, 1, 2), None)
    plain, binary = windows.batch(np.arange(30), None), np.array([False] * 6 + [True])
    off = augment(NO_AUGMENT, plain, data, (0, 1), binary)
    assert torch.equal(off.target, plain.target)
    noise = (augment(replace(NO_AUGMENT, action_noise=0.2), plain, data, (0, 1), binary).target - plain.target).numpy()
    assert (noise[..., 6] == 0).all()
    arm = noise[..., :6]  # 900 draws of deviation 0.2: their deviation is within 0.2 / sqrt(1800) x 4
    assert abs(arm.std() - 0.2) < 0.019
    assert abs(arm.mean()) < 4 * 0.2 / 30


def test_the_reset_token_is_shown_by_chance_where_nobody_reinstructed(data):
    config = make_config(data, "tiny", "", "fc", "one-step", "full")
    plain, binary = Windows(data, config, (0, 1, 2), None).batch(np.arange(30), None), np.zeros(7, bool)
    assert augment(NO_AUGMENT, plain, data, (0, 1), binary).resets == [False] * 30
    assert augment(replace(NO_AUGMENT, reset=1.0), plain, data, (0, 1), binary).resets == [True] * 30
    half = [augment(replace(NO_AUGMENT, reset=0.5), plain, data, (0, s), binary).resets for s in range(20)]
    assert 250 < sum(map(sum, half)) < 350
    said = plain._replace(resets=[True] * 30)
    assert augment(NO_AUGMENT, said, data, (0, 1), binary).resets == [True] * 30


def test_a_new_instruction_is_marked_from_the_data_to_the_network(data, tmp_path):
    """Frames from 4 on carry the flag; the word list then opens with the reset token (2), and the features differ."""
    backbone = TinyBackbone(BackboneConfig(width=32, depth=1), WORDS, 1, 1, start=False)
    assert backbone.ids("go left", True)[:4] == [2, 4, 5, 0]
    assert backbone.ids("go left", False)[:4] == [4, 5, 0, 0]
    config = make_config(data, "tiny", "", "fc", "one-step", "full")
    resets = np.zeros(len(data.actions), np.float32)
    resets[4:10] = 1
    batch = Windows(replace(data, resets=resets), config, (0,), None).batch(np.arange(10), None)
    assert batch.resets == [False] * 4 + [True] * 6
    torch.manual_seed(0)
    model = VLAModel(config).eval()
    seen = []
    shown = model.backbone.forward
    model.backbone.forward = lambda images, texts, marks, bins=None: (seen.append(marks), shown(images, texts, marks))[
        1
    ]
    marked = model.features(batch.images, batch.states, batch.texts, batch.resets).acts
    plain = model.features(batch.images, batch.states, batch.texts, [False] * 10).acts
    assert seen[0] == batch.resets
    assert torch.equal(marked[:4], plain[:4])
    assert (marked[4:] != plain[4:]).flatten(1).any(1).all()


def test_a_policy_told_anew_shows_the_reset_token(data):
    policy = VLAPolicy(VLAModel(make_config(data, "tiny", "", "fc", "one-step", "full")))
    observation = {"observation.images.cam0": data.images["cam0"][0], "observation.state": data.states[0]}
    seen = []
    shown = policy.model.backbone.forward
    policy.model.backbone.forward = lambda *given: (seen.append((given[1], given[2])), shown(*given))[1]
    policy.reset(Task(id="t", suite="s", instruction="go left", horizon=9), EpisodeKey(seed=0, task="t", episode=0))
    policy.infer(observation, 0)
    policy.reinstruct("go right")
    policy.infer(observation, 1)
    policy.reset(Task(id="t", suite="s", instruction="go left", horizon=9), EpisodeKey(seed=0, task="t", episode=1))
    policy.infer(observation, 0)
    assert [(list(texts), list(marks)) for texts, marks in seen] == [
        (["go left"], [False]), (["go right"], [True]), (["go left"], [False])
    ]  # fmt: skip
    assert action_spec(7).names[6] == "gripper"


def test_a_flow_heads_noise_hangs_on_episode_and_step_alone(data):
    """The key and nothing of this process: `keyed_rng` gives the same numbers in every one."""
    policy = VLAPolicy(VLAModel(make_config(data, "tiny", "", "flow", "one-step", "full")))
    key, given = EpisodeKey(seed=4, task="t", episode=2), []
    sample = policy.model.head.sample
    policy.model.head.sample = lambda features, noise: (given.append(noise), sample(features, noise))[1]
    policy.reset(Task(id="t", suite="s", instruction="go left", horizon=9), key)
    policy.infer({"observation.images.cam0": data.images["cam0"][0], "observation.state": data.states[0]}, 3)
    assert np.array_equal(
        given[0].numpy(), keyed_rng(4, "t", 2, "flow", 3).standard_normal(given[0].shape, dtype=np.float32)
    )


def test_a_flow_head_learns_the_way_from_noise_to_the_experts_chunk(data):
    """A field v asks for v = goal - noise; with v = 0, goals of 1 and two draws of noise 0 and 3 that costs (1 + 4) / 2."""
    config = make_config(data, "tiny", "", "flow", "one-step", "full")
    head = FlowHead(config, 5, 1)
    seen = []
    head.velocity = lambda x, time, features: (seen.append((x, time, features)), torch.zeros_like(x))[1]
    target = torch.ones(1, 1, 2, 7)
    noise = torch.stack([torch.zeros(1, 1, 14), torch.full((1, 1, 14), 3.0)])
    error = head.error(torch.zeros(1, 1, 5), target, noise, torch.full((2, 1, 1, 1), 0.25))
    assert error.flatten().tolist() == [2.5, 2.5]
    mixed = seen[0][0]  # a quarter of the way: 0.25 x 1 + 0.75 x noise
    assert mixed[:, 0, 0, 0].tolist() == [0.25, 2.5]
    assert seen[0][1].unique().tolist() == [0.25]


def test_an_ensembles_members_learn_from_different_episodes(data):
    """Members off by 1 and 2 that count the episode 3 times and never: (1 x 3 + 2 x 0) / 2; a field of zeros with goals of
    0.5 and noise 0 and 3: half of (0.25 + 6.25) / 2. The gripper counts like the arm."""
    config = make_config(data, "tiny", "", "ensemble", "one-step", "full")
    config = replace(config, arm_loss="l1", head=replace(config.head, members=2))
    head, target = EnsembleHead(config, 5, 1), torch.full((1, 1, 2, 7), 0.5)
    head.chunks = lambda features: torch.stack([target + 1, target - 2], 2)
    head.flow.forward = lambda x, time, features: torch.zeros_like(x)
    noise = torch.stack([torch.zeros(1, 1, 14), torch.full((1, 1, 14), 3.0)])
    given = (torch.zeros(1, 1, 5), target, noise, torch.full((2, 1, 1, 1), 0.25))
    error = head.error(*given, torch.tensor([[3.0, 0.0]]))
    assert error.flatten().tolist() == pytest.approx([1.5 + 0.5 * 3.25] * 2)
    assert head.error(*given, torch.ones(1, 2)).flatten().tolist() == pytest.approx([1.5 + 0.5 * 3.25] * 2)
    assert head.error(*given, torch.tensor([[1.0, 2.0]])).flatten().tolist() == pytest.approx([2.5 + 0.5 * 3.25] * 2)
    assert head(torch.zeros(1, 1, 5)).flatten().tolist() == [0.0] * 14


def test_a_member_counts_an_episode_a_poisson_number_of_times(data):
    """Mean and variance 1, the same at every step and in every batch; judged on held-out windows all count once."""
    counts = bootstrap(torch.arange(2000), 4)
    assert torch.equal(bootstrap(torch.tensor([7, 3]), 4), counts[[7, 3]])
    assert counts.shape == (2000, 4)
    assert abs(counts.mean().item() - 1) < 0.05
    assert abs(counts.var().item() - 1) < 0.08
    assert abs(np.corrcoef(counts.T.numpy())[0, 1]) < 0.1
    config = make_config(data, "tiny", "", "ensemble", "one-step", "full")
    batch = Windows(data, config, (1, 2), None).batch(np.array([0, 12]), None)
    assert batch.episodes.tolist() == [1, 2]
    model, seen = VLAModel(config), []
    model.head.error = lambda *given: (seen.append(given[-1]), torch.zeros(2, 1, 2))[1]
    draws = (torch.zeros(4, 2, 1, 14), torch.zeros(4, 2, 1, 1))
    model.train()(batch, draws)
    model.eval()(batch, draws)
    assert torch.equal(seen[0], counts[[1, 2]])
    assert torch.equal(seen[1], torch.ones(2, 4))


def test_the_features_are_asked_where_things_are(tmp_path):
    """Two offsets off by 3 and 0.5: (2.5 + 0.125) / 2; a flag of 1 with logit 0: a tenth of ln 2."""
    config = AuxiliaryConfig(offsets=2, flags=1)
    error = auxiliary_error(row(3.0, 0.5, 0.0)[None], row(0.0, 0.0, 1.0)[None], config)
    assert error.item() == pytest.approx((2.5 + 0.125) / 2 + 0.1 * LN2, rel=1e-6)
    assert auxiliary_error(row(0.0)[None], row(1.0)[None], AuxiliaryConfig(flags=1)).item() == pytest.approx(0.1 * LN2)
    items = [replace(item, places=np.full((10, 3), 1, np.float32)) for item in demonstrations(labels=True)]
    data = save_demonstrations(tmp_path / "d", items, action_spec(3), observation_spec(), source="x")
    asked = replace(make_config(data, "tiny", "", "fc", "one-step", "full", failure=True), auxiliary=config)
    batch = Windows(data, asked, (0,), None).batch(np.array([2, 5]), None)
    assert batch.places.tolist() == [[[1.0] * 3]] * 2
    model = VLAModel(asked)
    torch.nn.init.zeros_(model.auxiliary.weight)
    torch.nn.init.zeros_(model.auxiliary.bias)
    losses = model(batch)
    assert losses["auxiliary"].item() == pytest.approx(0.5 + 0.1 * LN2)
    parts = losses["action"] + losses["auxiliary"] + 0.1 * losses["failure"]
    assert losses["total"].item() == pytest.approx(parts.item())
    with pytest.raises(SpecMismatchError, match="x has 3 auxiliary targets and 2 offsets and 0 flags are asked for"):
        Windows(data, replace(asked, auxiliary=AuxiliaryConfig(offsets=2)), (0,), None)
    plain = make_data(tmp_path / "plain")
    with pytest.raises(SpecMismatchError, match="has 0 auxiliary targets"):
        Windows(plain, asked, (0,), None)
    with pytest.raises(EpisodeDataError, match=r"frame 0: places entry \(1,\) is nan"):
        replace(items[0], places=np.full((10, 3), [1, np.nan, 0], np.float32))
