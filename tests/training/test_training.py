"""The training loop: two processes, bad input, continuing, what is frozen, what a checkpoint says."""

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lattice_data import make_config, make_data, save_family

from failsight.core.errors import FailsightError, SpecMismatchError
from failsight.policies.vla.base import resolve_source
from failsight.policies.vla.design import BackboneConfig, FailureConfig
from failsight.policies.vla.model import VLAModel
from failsight.policies.vla.store import load_model, read_config
from failsight.policies.vla.streaming import VLAPolicy
from failsight.training.loop import Hooks, Split, fit
from failsight.training.options import FitConfig
from failsight.training.windows import Windows

SPLIT = Split((0, 1), (2,))
FIT = FitConfig(
    steps=4, batch=4, learning_rate=1e-3, warmup=1, schedule="cosine", evaluate_every=4, save_every=2, tracker="none"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "set", labels=True)


def rows(folder):
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def losses(folder):
    return [row["total"] for row in rows(folder) if "total" in row]


WORKER = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from lattice_data import make_config
from failsight.episodes.demonstrations import load_demonstrations
from failsight.training.options import Augment
from failsight.training.options import FitConfig
from failsight.training.loop import Split, fit
import torch
torch.set_num_threads(1)
data = load_demonstrations(Path({data!r}))
config = make_config(data, "tiny", "", {head!r}, {history!r}, "full", failure=True)
options = FitConfig(steps=6, batch={batch}, learning_rate=1e-3, warmup=1, evaluate_every=6, save_every=3, tracker="none",
                    accumulate=2)
fit(data, config, options, Split((0, 1), (2,)), Path({out!r}), augment=Augment())
"""


def launch(tmp_path, data, name, batch, processes, head, history):
    script, out = tmp_path / f"{name}.py", tmp_path / name
    tests = str(Path(__file__).parent.parent)
    script.write_text(
        WORKER.format(tests=tests, data=str(data.folder), head=head, history=history, batch=batch, out=str(out))
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(script)]
    if processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        command = [*launcher, "--master_port", str(port), str(script)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    return losses(out), rows(out)[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("head", "history"), [("lstm", "policy-head"), ("flow", "one-step")])
def test_two_processes_equal_one_with_the_doubled_batch(data, tmp_path, head, history):
    """gloo on CPU, with accumulation, augmentation and a failure head; float32 sums in another order: 1e-4 relative."""
    one, valid_one = launch(tmp_path, data, "one", 4, 1, head, history)
    two, valid_two = launch(tmp_path, data, "two", 2, 2, head, history)
    assert len(one) == len(two) == 6
    np.testing.assert_allclose(two, one, rtol=1e-4)
    np.testing.assert_allclose(valid_two["valid_total"], valid_one["valid_total"], rtol=1e-3)


JUDGED = """
import sys; sys.path.insert(0, {tests!r})
import json, os, time
from pathlib import Path
from lattice_data import make_config
from failsight.episodes.demonstrations import load_demonstrations
from failsight.core.errors import FailsightError
from failsight.training.options import FitConfig
from failsight.training.loop import Hooks, Split, fit
data, rank = load_demonstrations(Path({data!r})), os.environ["RANK"]
out = Path({out!r})
def success(folder):
    assert rank == "0", "only the first process drives"
    time.sleep(2.0)  # longer than the collectives' patience below
    if {broken}:
        raise ValueError("the simulator broke")
    return {{2: 0.25, 4: 0.75, 6: 0.5}}[len((out / "losses.jsonl").read_text().splitlines()) - (0, 1, 2)[calls.pop(0)]]
calls = [0, 1, 2]
import datetime, torch.distributed as dist
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=1.5))
options = FitConfig(steps=6, batch=2, warmup=1, evaluate_every=2, save_every=6, tracker="none", best_by="success")
config = make_config(data, "tiny", "", "fc", "one-step", "full")
try:
    fitted = fit(data, config, options, Split((0, 1), (2,)), out, hooks=Hooks(success=success))
    said = [fitted.best_step, fitted.best_value]
except FailsightError as error:
    said = str(error)
(out / f"said-{{rank}}.json").write_text(json.dumps(said))
"""


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_two_processes_wait_for_one_that_drives_and_share_what_it_finds(data, tmp_path, broken):
    script, out = tmp_path / "judged.py", tmp_path / "out"
    out.mkdir()
    tests = str(Path(__file__).parent.parent)
    script.write_text(JUDGED.format(tests=tests, data=str(data.folder), out=str(out), broken=broken))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    subprocess.run([*launcher, str(script)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120)
    said = [json.loads((out / f"said-{rank}.json").read_text()) for rank in (0, 1)]
    assert said[0] == said[1]
    assert ("the simulator broke" in said[0]) if broken else said[0] == [4, 0.75]


@pytest.mark.slow
def test_kill_9_and_the_same_command_give_the_losses_of_an_undisturbed_training(data, tmp_path):
    def start(name):
        script, out = tmp_path / f"{name}.py", tmp_path / name
        text = WORKER.format(
            tests=str(Path(__file__).parent.parent),
            data=str(data.folder),
            head="gpt",
            history="policy-head",
            batch=4,
            out=str(out),
        )
        script.write_text(text.replace("steps=6", "steps=40").replace("save_every=3", "save_every=7"))
        return out, subprocess.Popen([sys.executable, str(script)], env={**os.environ, "OMP_NUM_THREADS": "1"})

    whole, process = start("whole")
    assert process.wait(200) == 0
    cut, process = start("cut")
    for lines in (9, 23):  # twice, each time somewhere behind a checkpoint
        while not (cut / "losses.jsonl").is_file() or len((cut / "losses.jsonl").read_text().splitlines()) < lines:
            assert process.poll() is None, "the training ended before it could be killed"
            threading.Event().wait(0.005)
        process.kill()
        process.wait()
        _, process = start("cut")
    assert process.wait(200) == 0
    assert losses(cut) == losses(whole)


def test_a_loss_that_is_not_finite_stops_with_the_windows_of_the_batch(data, tmp_path):
    config = make_config(data, "tiny", "", "fc", "one-step", "full")
    config = replace(config, arm_loss="mse")
    options = replace(FIT, learning_rate=1e30, clip=0.0, warmup=0, steps=20)
    with pytest.raises(FailsightError, match=r"not finite at step \d+.*episode-\d:\d"):
        fit(data, config, options, SPLIT, tmp_path)


def test_a_folder_of_another_training_is_refused(data, tmp_path):
    config = make_config(data, "tiny", "", "fc", "one-step", "full")
    fit(data, config, FIT, SPLIT, tmp_path)
    with pytest.raises(FailsightError, match="other settings"):
        fit(data, config, replace(FIT, learning_rate=2e-3), SPLIT, tmp_path)
    with pytest.raises(FailsightError, match="other settings"):
        fit(data, replace(config, chunk=1), FIT, SPLIT, tmp_path)
    other = make_data(tmp_path / "other", seed=5)
    with pytest.raises(FailsightError, match="other data"):
        fit(other, config, FIT, SPLIT, tmp_path)


def test_no_training_episode_is_an_error(data, tmp_path):
    with pytest.raises(FailsightError, match="No training windows"):
        fit(data, make_config(data, "tiny", "", "fc", "one-step", "full"), FIT, Split((), (0,)), tmp_path)


def test_a_failure_head_alone_leaves_the_policy_as_it_is(data, tmp_path):
    config = make_config(data, "tiny", "", "lstm", "policy-head", "full")
    policy = fit(data, config, FIT, SPLIT, tmp_path / "policy")
    with_head = replace(config, failure=FailureConfig(width=16))
    options = replace(FIT, train="failure", steps=12, learning_rate=1e-2)
    fitted = fit(data, with_head, options, SPLIT, tmp_path / "head", start=policy.last)
    before, after = load_model(policy.last), load_model(fitted.last)
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name
    failure = [row["failure"] for row in rows(tmp_path / "head") if "failure" in row]
    assert failure[-1] < failure[0]


def test_a_joint_failure_head_speaks_at_run_time(data, tmp_path):
    from failsight.core.types import EpisodeKey, Task

    config = make_config(data, "tiny", "", "lstm", "policy-head", "full", failure=True)
    fitted = fit(data, config, FIT, SPLIT, tmp_path)
    policy = VLAPolicy.load(fitted.last)
    policy.reset(Task(id="t", suite="s", instruction="go left", horizon=9), EpisodeKey(seed=0, task="t", episode=0))
    observation = {"observation.images.cam0": data.images["cam0"][0], "observation.state": data.states[0]}
    p_fail, left, replan = policy.infer(observation, 0).failure
    assert 0 < p_fail < 1
    assert left >= 0
    assert 0 < replan < 1


def test_the_failure_heads_gradient_reaches_the_policy_by_its_share(data):
    config = make_config(data, "tiny", "", "lstm", "policy-head", "full", failure=True)
    batch = Windows(data, config, (0, 1), None).batch(np.arange(6), None)
    found = {}
    for share in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        model = VLAModel(replace(config, failure=replace(config.failure, gradient=share)))
        model(batch)["failure"].backward()
        grads = [p.grad for p in model.backbone.parameters() if p.grad is not None]
        found[share] = torch.cat([g.flatten() for g in grads]).norm().item() if grads else 0.0
        assert model.failure.net[1].weight.grad.norm() > 0
    assert found[0.0] == 0
    assert found[1.0] == pytest.approx(2 * found[0.5], rel=1e-3)


def test_a_loss_of_the_menu_can_take_the_place_of_the_default(data, tmp_path):
    seen = []

    def loss(logits, fails, mask):
        seen.append((logits.shape, fails.shape, mask.shape))
        return (logits * mask).pow(2).mean()

    config = make_config(data, "tiny", "", "lstm", "policy-head", "full", failure=True)
    fit(data, config, replace(FIT, steps=1), SPLIT, tmp_path, hooks=Hooks(failure_loss=loss))
    assert seen
    assert seen[0] == ((4, 3), (4, 3), (4, 3))


def test_a_checkpoint_of_another_spec_is_not_continued(data, tmp_path):
    config = make_config(data, "tiny", "", "fc", "one-step", "full")
    fitted = fit(data, config, FIT, SPLIT, tmp_path / "a")
    other = make_data(tmp_path / "two", size=2)
    with pytest.raises(SpecMismatchError, match="action_spec"):
        fit(
            other,
            make_config(other, "tiny", "", "fc", "one-step", "full"),
            FIT,
            SPLIT,
            tmp_path / "b",
            start=fitted.last,
        )


def test_training_continues_on_other_data(data, tmp_path):
    config = make_config(data, "tiny", "", "fc", "one-step", "full")
    first = fit(data, config, replace(FIT, steps=30, schedule="constant"), SPLIT, tmp_path / "a")
    more = make_data(tmp_path / "more", seed=9, labels=True)
    fit(more, config, replace(FIT, steps=2), SPLIT, tmp_path / "b", start=first.last)
    fit(more, config, replace(FIT, steps=2), SPLIT, tmp_path / "c")
    assert losses(tmp_path / "b")[0] < losses(tmp_path / "c")[0]


def test_best_by_success_asks_the_simulator(data, tmp_path):
    scores = iter([0.5, 0.75, 0.25])
    config = make_config(data, "tiny", "", "fc", "one-step", "full")
    options = replace(FIT, steps=6, evaluate_every=2, best_by="success")
    fitted = fit(data, config, options, SPLIT, tmp_path, hooks=Hooks(success=lambda folder: next(scores)))
    assert (fitted.best_step, fitted.best_value) == (4, 0.75)
    assert read_config(fitted.best).provenance["success"] == 0.75
    with pytest.raises(FailsightError, match=r"name one with --sim"):
        fit(data, config, options, SPLIT, tmp_path / "x")


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_schedules_precisions_and_accumulation_train(data, tmp_path, schedule, precision):
    config = make_config(data, "tiny", "", "gpt", "policy-head", "full")
    options = replace(FIT, steps=8, schedule=schedule, precision=precision, accumulate=2, sampling="sequential")
    fit(data, config, options, SPLIT, tmp_path)
    assert np.isfinite(losses(tmp_path)).all()


def test_gradient_checkpointing_changes_no_loss(data, tmp_path):
    source = save_family("kosmos-2", tmp_path / "vlm")
    for name, on in (("a", False), ("b", True)):
        config = make_config(data, "kosmos-2", source, "fc", "one-step", checkpointing=on)
        fit(data, config, FIT, SPLIT, tmp_path / name)
    np.testing.assert_allclose(losses(tmp_path / "a"), losses(tmp_path / "b"), rtol=1e-5)


def test_base_weights_that_changed_are_noticed(data, tmp_path):
    source = save_family("llava", tmp_path / "vlm")
    fitted = fit(data, make_config(data, "llava", source, "fc", "one-step"), FIT, SPLIT, tmp_path / "run")
    save_family("llava", tmp_path / "vlm").touch()
    load_model(fitted.last)
    from failsight.testing.tiny_vlms import save_tiny_vlm

    save_tiny_vlm("llava", tmp_path / "vlm", seed=3)
    with pytest.raises(FailsightError, match="was trained on base weights"):
        load_model(fitted.last)


def test_damaged_checkpoints_are_one_sentence(data, tmp_path):
    fitted = fit(data, make_config(data, "tiny", "", "fc", "one-step", "full"), FIT, SPLIT, tmp_path)
    weights = fitted.last / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(FailsightError, match=r"does not fit its config\.json"):
        load_model(fitted.last)
    with pytest.raises(FailsightError, match="No checkpoint in"):
        load_model(tmp_path / "nowhere")


def test_a_missing_backbone_says_what_was_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone")
    with pytest.raises(FailsightError, match=r"does not exist.*its link target .*gone.*hf download"):
        resolve_source(BackboneConfig(family="llava", source=str(link)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FailsightError, match=r"a folder without config\.json"):
        resolve_source(BackboneConfig(family="llava", source=str(tmp_path / "empty")))
    with pytest.raises(FailsightError, match=r"the hub cache .*hf download microsoft/kosmos-2"):
        resolve_source(BackboneConfig(family="kosmos-2", source="microsoft/kosmos-2-not-here"))


def test_the_wrong_family_is_named(data, tmp_path):
    source = save_family("smolvlm", tmp_path / "vlm")
    with pytest.raises(FailsightError, match=r"--backbone\.family smolvlm"):
        fit(data, make_config(data, "llava", source, "fc", "one-step"), FIT, SPLIT, tmp_path / "x")


def test_a_frozen_tiny_needs_something_to_freeze(data, tmp_path):
    with pytest.raises(FailsightError, match="nothing to freeze"):
        fit(data, make_config(data, "tiny", "", "fc", "one-step", "lora"), FIT, SPLIT, tmp_path)


def test_too_many_action_tokens_are_refused(data, tmp_path):
    config = make_config(data, "tiny", "", "discrete", "one-step", "full", chunk=50)
    with pytest.raises(FailsightError, match="at most 128 action tokens; chunk x dimensions is 150"):
        fit(data, config, FIT, SPLIT, tmp_path)


def test_low_rank_updates_of_a_shipped_tiny_backbone(data, tmp_path):
    config = make_config(data, "tiny", "tabletop-strong", "lstm", "policy-head", "lora")
    config = replace(config, backbone=replace(config.backbone, width=160, depth=3))
    fitted = fit(data, config, FIT, SPLIT, tmp_path)
    model = load_model(fitted.last)
    from safetensors.torch import load_file

    shipped = Path(resolve_shipped("tabletop-strong")) / "backbone.safetensors"
    original = load_file(shipped)["towers.0.conv1.weight"]
    assert torch.equal(model.backbone.towers[0].conv1.base_layer.weight, original), "frozen weights stay"


def resolve_shipped(name):
    from failsight.policies.vla import shipped

    return shipped.CHECKPOINTS / name
