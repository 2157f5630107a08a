"""Every backbone family x head x history: trains, saves, resumes, loads, infers; streaming equals training."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from lattice_data import FAMILIES, make_config, make_data, save_family

from failsight.core.errors import FailsightError, UnknownNameError
from failsight.core.types import EpisodeKey, Step, Task
from failsight.policies.vla.design import (
    HEADS,
    HISTORIES,
    FailureConfig,
    HeadConfig,
    HistoryConfig,
    cells,
    require_cell,
)
from failsight.policies.vla.families import NAMES
from failsight.policies.vla.model import VLAModel
from failsight.policies.vla.streaming import VLAPolicy
from failsight.signals.uncertainty import UncertaintySignals
from failsight.testing import checks
from failsight.training.loop import Hooks, Split, Training, fit
from failsight.training.options import FitConfig
from failsight.training.windows import Windows

SPLIT = Split((0, 1), (2,))
FIT = FitConfig(
    steps=6, batch=6, learning_rate=3e-3, warmup=1, schedule="constant", sampling="sequential",
    evaluate_every=6, save_every=3, tracker="none",
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("vlms")
    return {"tiny": ""} | {name: save_family(name, root / name) for name in FAMILIES if name != "tiny"}


def losses(folder):
    return [r["total"] for r in map(json.loads, (folder / "losses.jsonl").read_text().splitlines()) if "total" in r]


def observations(data, episode):
    row = data.episodes[episode]
    for t in range(row.length):
        images = {f"observation.images.{name}": values[row.first + t] for name, values in data.images.items()}
        yield {**images, "observation.state": data.states[row.first + t]}


def stream(policy, data, episode=0):
    """Outputs of a policy that lives through a recorded episode."""
    task = Task(id="t", suite="s", instruction=data.episodes[episode].instruction, horizon=50)
    policy.reset(task, EpisodeKey(seed=0, task="t", episode=0))
    return [policy.infer(observation, t) for t, observation in enumerate(observations(data, episode))]


def test_the_table_covers_every_family():
    assert set(FAMILIES) == set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("head", "history"), cells())
def test_every_cell_trains_saves_resumes_loads_and_infers(family, head, history, data, sources, tmp_path):
    config = make_config(data, family, sources[family], head, history, tuning="full" if family == "tiny" else "lora")
    before = Training(data, config, FIT, Split((0, 1), (0, 1)), tmp_path / "x", None, None, Hooks()).validation()
    whole = fit(data, config, FIT, SPLIT, tmp_path / "whole")
    cut = tmp_path / "cut"
    fit(data, config, FIT, SPLIT, cut, hooks=Hooks(stop_at=3))
    fit(data, config, FIT, SPLIT, cut)
    assert losses(cut) == losses(tmp_path / "whole"), "a resumed training must go on with the same losses"
    policy = VLAPolicy.load(whole.last)
    after = _validation(policy.model, data, policy.model.config)
    assert after < before["total"], "three steps and more must lower the loss on the windows trained on"
    output = stream(policy, data)[-1]
    assert output.chunk.shape == (2, 3)
    assert np.isfinite(output.chunk).all()
    assert output.hidden is not None
    assert np.isfinite(output.hidden).all()


def _validation(model, data, config):
    training = Training.__new__(Training)
    from accelerate import Accelerator

    training.accelerator = Accelerator(cpu=True)
    training.options, training.config, training.model = FIT, config, model
    training.valid = Windows(data, config, (0, 1), None)
    return training.validation()["total"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("history", HISTORIES)
def test_streaming_equals_the_training_forward_pass(family, history, data, sources):
    """At every step of an episode; the tolerance covers batching in float32."""
    head = {"one-step": "fc", "policy-head": "lstm", "interleaved": "fc"}[history]
    model = VLAModel(make_config(data, family, sources[family], head, history, "full" if family == "tiny" else "lora"))
    policy = VLAPolicy(model)
    streamed = np.stack([output.chunk for output in stream(policy, data)])
    windows = Windows(data, model.config, (0,), None)
    batch = windows.batch(np.arange(len(windows)), None)
    with torch.inference_mode():
        seen = model.features(batch.images, batch.states, batch.texts, batch.resets).acts
        trained = windows.actions.backward(model.head(seen)[:, -1].numpy())
    np.testing.assert_allclose(streamed, np.clip(trained, -2, 2), atol=2e-4)


def test_streaming_with_a_stride_and_missing_ticks(data):
    config = make_config(data, "tiny", "", "lstm", "policy-head", "full", chunk=4)
    config = replace(config, history=HistoryConfig(kind="policy-head", window=3, stride=2))
    policy = VLAPolicy(VLAModel(config))
    frames = list(observations(data, 0))
    task = Task(id="t", suite="s", instruction="go left", horizon=50)
    policy.reset(task, EpisodeKey(seed=0, task="t", episode=0))
    for t in (0, 2, 3, 7):  # an intervention shifted the ticks
        last = policy.infer(frames[t], t)
    saved = policy.save_state()
    again = policy.infer(frames[7], 7)
    assert np.array_equal(again.chunk, last.chunk), "asking twice must change nothing"
    policy.reset(task, EpisodeKey(seed=0, task="t", episode=1))
    policy.load_state(saved)
    assert np.array_equal(policy.infer(frames[7], 7).chunk, last.chunk)


@pytest.mark.parametrize(("head", "history"), cells())
def test_every_cell_keeps_sessions_apart_and_heeds_a_new_instruction(head, history, data):
    policy = VLAPolicy(VLAModel(make_config(data, "tiny", "", head, history, "full", chunk=4, failure=True)))
    task = Task(id="t", suite="s", instruction="go to the bottle left", horizon=50)
    key = EpisodeKey(seed=4, task="t", episode=3)
    sessions = [
        (replace(task, instruction=f"go to the {side}"), replace(key, episode=i))
        for i, side in enumerate(("left", "right"))
    ]
    checks.check_policy_sessions(policy, sessions, count=6)
    # the untrained action tokens of a discrete head may round to the same bins, whatever it was told
    checks.check_reinstruct(policy, task, key, "go to the bottle right", heeds=head != "discrete")


def joint(data, **changes):
    """The shipped policies' cell: one frame in which everything sees everything, an ensemble with a flow field."""
    config = make_config(data, "tiny", "", "ensemble", "one-step", "full", chunk=4, attention="joint")
    head = replace(config.head, members=3, samples=5)
    history = HistoryConfig(kind="one-step", window=1, stride=2)
    return replace(config, head=head, history=history, **changes)


@pytest.mark.parametrize("options", [{}, {"use_state": False}, {"failure": FailureConfig(width=16)}])
def test_the_joint_cell_trains_saves_resumes_and_loads(data, options, tmp_path):
    data = make_data(tmp_path / "labelled", labels=True)
    config = joint(data, **options)
    before = Training(data, config, FIT, Split((0, 1), (0, 1)), tmp_path / "x", None, None, Hooks()).validation()
    whole = fit(data, config, FIT, SPLIT, tmp_path / "whole")
    fit(data, config, FIT, SPLIT, tmp_path / "cut", hooks=Hooks(stop_at=3))
    cut = fit(data, config, FIT, SPLIT, tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    first, second = VLAPolicy.load(whole.last), VLAPolicy.load(cut.last)
    assert _validation(first.model, data, config) < before["total"]
    for one, other in zip(stream(first, data), stream(second, data), strict=True):
        assert np.array_equal(one.chunk, other.chunk)
        assert np.array_equal(one.members, other.members)
        assert np.array_equal(one.samples, other.samples)
    assert first.execute == 2


def test_an_ensemble_shows_members_and_draws_and_the_signals_read_them(data):
    """The chunk is the members' mean; the spread is theirs and not that of the drawn chunks."""
    torch.manual_seed(0)
    policy = VLAPolicy(VLAModel(joint(data)))
    with torch.no_grad():
        for member in policy.model.head.members:
            member[2].weight *= 20  # beyond what may be executed
    output = stream(policy, data)[3]
    assert (output.members.shape, output.samples.shape, output.hidden.shape) == ((3, 4, 3), (5, 4, 3), (64,))
    limit = np.array(data.action_spec.high)
    np.testing.assert_allclose(
        output.chunk, np.clip(output.members.astype(np.float32).mean(0), -limit, limit), atol=5e-3
    )
    assert np.abs(output.members).max() > limit.max(), "a spread is not cut by what may be executed"
    signals, found = UncertaintySignals(np.ones(3, bool), 2.5), np.zeros(6)
    signals.update(
        Step(index=3, state=data.states[3], action=output.chunk[3], output=output, cursor=3, replan=True), found
    )
    assert found[0] == pytest.approx(output.members[:, 3].astype(float).std(0).__pow__(2).mean() ** 0.5)
    assert found[2] == pytest.approx(output.samples[:, 3].astype(float).var(0).mean())


def test_the_joint_cell_streams_what_it_was_trained_on(data):
    policy = VLAPolicy(VLAModel(joint(data)))
    streamed = np.stack([output.chunk for output in stream(policy, data)])
    windows = Windows(data, policy.config, (0,), None)
    batch = windows.batch(np.arange(len(windows)), None)
    with torch.inference_mode():
        seen = policy.model.features(batch.images, batch.states, batch.texts, batch.resets).acts
        trained = windows.actions.backward(policy.model.head(seen[..., :32])[:, -1].numpy())
    np.testing.assert_allclose(streamed, np.clip(trained, -2, 2), atol=2e-4)
    changed = batch.states + 1
    with torch.inference_mode():
        other = policy.model.features(batch.images, changed, batch.texts, batch.resets).acts
    assert float((other - seen).abs().amax((1, 2)).min()) > 1e-4, "the state is a token that all others see"


def test_a_policy_without_a_reset_token_reads_a_new_instruction_like_a_first_one(data):
    torch.manual_seed(0)
    policy = VLAPolicy(VLAModel(joint(data, reset_token=False)))
    told = stream(policy, data, 0)[4]
    policy.reset(Task(id="t", suite="s", instruction="go", horizon=50), EpisodeKey(seed=0, task="t", episode=0))
    policy.reinstruct(data.episodes[0].instruction)
    again = policy.infer(list(observations(data, 0))[4], 4)
    assert np.array_equal(again.chunk, told.chunk)
    policy.model.config = replace(policy.model.config, reset_token=True)
    assert not np.array_equal(policy.infer(list(observations(data, 0))[4], 4).chunk, told.chunk)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"family": "llava"}, "--backbone.family llava"),
        ({"tuning": "lora"}, "--backbone.tuning lora"),
        ({"source": "tabletop-strong"}, "--backbone.source tabletop-strong"),
        ({"history": "interleaved"}, "--history.kind interleaved"),
    ],
)
def test_joint_attention_says_what_it_does_not_go_with(data, changes, told):
    history = changes.pop("history", "one-step")
    config = make_config(data, "tiny", "", "ensemble", history, "full", attention="joint")
    config = replace(config, backbone=replace(config.backbone, **changes))
    with pytest.raises(FailsightError, match=f"Joint attention does not go with {told}: it is the tiny backbone's"):
        VLAModel(config)
    with pytest.raises(UnknownNameError, match="joint"):
        VLAModel(replace(config, backbone=replace(config.backbone, attention="jiont")))


def test_a_flow_policy_does_not_depend_on_the_process(data, tmp_path):
    config = make_config(data, "tiny", "", "flow", "interleaved", "full")
    fitted = fit(data, config, replace(FIT, steps=1, save_every=1, evaluate_every=1), SPLIT, tmp_path)
    checks.check_policy_process("failsight.workflows.wiring:make_policy", str(fitted.last))


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "tiny"])
@pytest.mark.parametrize("tuning", ["frozen", "full"])
def test_other_tunings_round_trip(family, tuning, data, sources, tmp_path):
    config = make_config(data, family, sources[family], "fc", "interleaved", tuning, action_tokens=2, layers=(-1, 1))
    fitted = fit(data, config, replace(FIT, steps=3), SPLIT, tmp_path)
    trained = VLAPolicy.load(fitted.last)
    assert np.isfinite(stream(trained, data)[-1].chunk).all()
    if tuning == "full":
        assert not (fitted.last / "adapter").exists()
    else:
        sizes = [p.stat().st_size for p in (fitted.last / "adapter").glob("*.safetensors")]
        assert sizes
        assert max(sizes) < 20_000, "only the new tokens are kept"


@pytest.mark.parametrize(("head", "history"), [(h, y) for h in HEADS for y in HISTORIES if (h, y) not in cells()])
def test_cells_that_do_not_exist_are_refused_by_name(head, history):
    window = 1 if history == "one-step" else 4
    with pytest.raises(FailsightError, match=f"Head '{head}' does not go with history '{history}'"):
        require_cell(HeadConfig(kind=head), HistoryConfig(kind=history, window=window), 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_do_not_look_ahead(family, data, sources):
    """Interleaved history: a later frame never changes an earlier frame's features, and always changes its own."""
    tuning = "full" if family == "tiny" else "lora"
    model = VLAModel(make_config(data, family, sources[family], "fc", "interleaved", tuning)).eval()
    batch = Windows(data, model.config, (0,), None).batch(np.array([5, 8]), None)
    changed = batch.images.clone()
    changed[:, 2] = 255 - changed[:, 2]
    with torch.inference_mode():
        first = model.features(batch.images, batch.states, batch.texts, batch.resets).acts
        second = model.features(changed, batch.states, batch.texts, batch.resets).acts
    assert torch.equal(first[:, :2], second[:, :2])
    assert float((first[:, 2] - second[:, 2]).abs().max()) > 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_instruction_reset_and_padding(family, data, sources):
    """Another wording and the reset token change the features; a longer neighbour in the batch does not."""
    tuning = "full" if family == "tiny" else "lora"
    model = VLAModel(make_config(data, family, sources[family], "fc", "one-step", tuning)).eval()
    batch = Windows(data, model.config, (0,), None).batch(np.array([5, 5]), None)

    def features(texts, resets):
        with torch.inference_mode():
            return model.features(batch.images[: len(texts)], batch.states[: len(texts)], texts, resets).acts

    alone = features(["go left"], [False])
    assert float((features(["go right"], [False]) - alone).abs().max()) > 1e-6
    assert float((features(["go left"], [True]) - alone).abs().max()) > 1e-6
    beside = features(["go left", "go to the bottle and then to the left or to the right"], [False, True])
    np.testing.assert_allclose(beside[0].numpy(), alone[0].numpy(), atol=2e-5)
