"""What used to fall back in silence: missing statistics, missing or misshapen weights, a best checkpoint by nothing."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from lattice_data import make_config, make_data, save_family
from safetensors.torch import load_file, save_file

from failsight.core.errors import FailsightError, SpecMismatchError, UnknownNameError
from failsight.policies.vla.base import resolve_source, weight_files
from failsight.policies.vla.design import BackboneConfig, FailureConfig, HeadConfig, HistoryConfig
from failsight.policies.vla.finite import better, require_finite_statistics
from failsight.policies.vla.model import VLAModel
from failsight.policies.vla.pixels import SYMMETRIC, pixel_scaling
from failsight.policies.vla.shipped import CHECKPOINTS
from failsight.policies.vla.store import fingerprint, load_model
from failsight.training.config import TrainConfig
from failsight.training.loop import Hooks, Split, Training, fit
from failsight.training.options import Augment, FitConfig
from failsight.training.precision import Skips
from failsight.training.sampling import Plan, rows_of
from failsight.training.schedule import rate
from failsight.training.windows import Windows
from failsight.workflows.offline import validation_error
from failsight.workflows.train import train

SPLIT = Split((0, 1), (2,))
FIT = FitConfig(steps=2, batch=2, warmup=1, evaluate_every=2, save_every=2, tracker="none")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "set", labels=True)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return save_family("llava", tmp_path_factory.mktemp("llava") / "base")


@pytest.fixture(scope="module")
def low_rank(data, llava, tmp_path_factory):
    """A LLaVA with low-rank updates; returns its checkpoint."""
    folder = tmp_path_factory.mktemp("low-rank")
    return fit(data, make_config(data, "llava", llava, "fc", "one-step"), FIT, SPLIT, folder).last


@pytest.fixture(scope="module")
def whole(data, llava, tmp_path_factory):
    """A LLaVA trained in full; returns its checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    return fit(data, make_config(data, "llava", llava, "fc", "one-step", "full"), FIT, SPLIT, folder).last


def copy(folder, target):
    shutil.copytree(folder, target)
    return target


def change(path, edit):
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


# ------------------------------------------------------------------------------------------------- picture scaling


def test_a_model_that_does_not_say_how_pictures_are_scaled_is_refused(data, llava, tmp_path):
    base = copy(llava, tmp_path / "base")
    (base / "preprocessor_config.json").unlink()
    with pytest.raises(FailsightError, match=r"does not say how its pictures are scaled.*--backbone\.pixels symmetric"):
        fit(data, make_config(data, "llava", base, "fc", "one-step"), FIT, SPLIT, tmp_path / "run")
    chosen = make_config(data, "llava", base, "fc", "one-step", pixels="symmetric")
    training = Training(data, chosen, FIT, SPLIT, tmp_path / "run", None, None, Hooks())
    assert training.plain.backbone._mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert training.plain.backbone._std.flatten().tolist() == [0.5, 0.5, 0.5]


def test_picture_scaling_is_read_and_checked(llava, tmp_path):
    assert pixel_scaling(llava, "checkpoint").mean == (0.48, 0.46, 0.41)
    assert pixel_scaling(llava, "symmetric") == SYMMETRIC
    base = copy(llava, tmp_path / "base")
    file = base / "preprocessor_config.json"
    file.write_text(json.dumps({"do_normalize": False}))
    assert pixel_scaling(base, "checkpoint") == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    for bad in ({"image_mean": [0.5] * 3}, {"image_mean": [0.5] * 2, "image_std": [1] * 3},
                {"image_mean": [0.5] * 3, "image_std": [0.0] * 3},
                {"image_mean": [0.5, 0.5, float("nan")], "image_std": [1] * 3}):  # fmt: skip
        file.write_text(json.dumps(bad))
        with pytest.raises(FailsightError, match="image_"):
            pixel_scaling(base, "checkpoint")


# ---------------------------------------------------------------------------------------------------- whole weights


def test_a_backbone_trained_in_full_comes_back_whole_or_not_at_all(whole, tmp_path):
    before = load_model(whole).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in load_model(whole).state_dict().items())
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    for label, edit, message in (
        ("less", lambda t: t.pop(name), rf"lacks 1 tensors \({name}\)"),
        ("more", lambda t: t.update(stray=torch.zeros(1)), r"holds 1 tensors that this model lacks \(stray"),
        ("shape", lambda t: t.update({name: t[name][:3].clone()}), rf"{name} is \(3, 64\) there"),
    ):
        folder = copy(whole, tmp_path / label)
        change(folder / "backbone" / "weights.safetensors", edit)
        with pytest.raises(FailsightError, match=message):
            load_model(folder)


def test_low_rank_updates_and_heads_come_back_whole_or_not_at_all(low_rank, tmp_path):
    for label, file, message in (
        ("adapter", "adapter/adapter_model.safetensors", r"adapter_model\.safetensors lacks 1 tensors"),
        ("head", "head.safetensors", r"head\.safetensors lacks 1 tensors"),
    ):
        folder = copy(low_rank, tmp_path / label)
        change(folder / file, lambda t: t.pop(sorted(t)[0]))
        with pytest.raises(FailsightError, match=message):
            load_model(folder)


def test_a_base_with_a_tensor_too_few_would_start_at_random(data, llava, tmp_path):
    base = copy(llava, tmp_path / "base")
    change(base / "model.safetensors", lambda t: t.pop(next(n for n in t if "layers.0.mlp.up_proj" in n)))
    with pytest.raises(FailsightError, match=r"lacks 1 tensors \(.*up_proj.*\); they would start at random"):
        fit(data, make_config(data, "llava", base, "fc", "one-step"), FIT, SPLIT, tmp_path / "run")
    (base / "model.safetensors").unlink()
    with pytest.raises(FailsightError, match="holds no weights"):
        fit(data, make_config(data, "llava", base, "fc", "one-step"), FIT, SPLIT, tmp_path / "run")


def test_a_tiny_start_of_another_size_is_refused(data, tmp_path):
    config = make_config(data, "tiny", "tabletop-strong", "fc", "one-step", "full")  # width 32, the start has 160
    with pytest.raises(FailsightError, match=r"is \(32, \d+\) here and \(160, \d+\); set --backbone\.width"):
        fit(data, config, FIT, SPLIT, tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scheme": "min-max"}, "scheme"),
        ({"use_state": False}, "use_state"),
        ({"vocabulary": ("other", "words")}, "vocabulary"),
        ({"failure": None}, "failure"),
        ({"failure": FailureConfig(width=8)}, "failure"),
        ({"backbone": BackboneConfig(width=32, depth=2)}, r"backbone\.depth"),
    ],
)
def test_a_checkpoint_is_continued_only_where_its_weights_keep_their_meaning(data, tmp_path, change, named):
    config = make_config(data, "tiny", "", "fc", "one-step", "full", failure=True)
    config = replace(config, backbone=BackboneConfig(width=32, depth=1))
    start = fit(data, config, FIT, SPLIT, tmp_path / "a").last
    fit(data, config, replace(FIT, batch=3), SPLIT, tmp_path / "b", start=start)
    with pytest.raises(SpecMismatchError, match=f"cannot be continued: its {named} is"):
        fit(data, replace(config, **change), FIT, SPLIT, tmp_path / "c", start=start)


def test_a_failure_head_alone_keeps_the_units_and_words_of_its_policy(tmp_path):
    first, second = (make_data(tmp_path / f"d{seed}", labels=True, seed=seed) for seed in (0, 1))
    options = TrainConfig(backbone=BackboneConfig(width=32, depth=1), head=HeadConfig(kind="fc", width=16),
                          history=HistoryConfig(kind="one-step", window=1), chunk=2, validation_share=0.4, fit=FIT)  # fmt: skip
    policy = train(first.folder, options, tmp_path / "policy").last
    alone = replace(options, start=policy, failure_head=True, fit=replace(FIT, train="failure"))
    head = train(second.folder, alone, tmp_path / "head").last
    kept, found = (json.loads((folder / "config.json").read_text()) for folder in (policy, head))
    assert found["statistics"] == kept["statistics"]
    assert found["vocabulary"] == kept["vocabulary"]


# ------------------------------------------------------------------------------------------------- the best checkpoint


def test_nothing_to_validate_on_is_no_best_checkpoint(data, tmp_path):
    config = make_config(data, "tiny", "", "fc", "one-step", "full")
    with pytest.raises(FailsightError, match=r"needs validation episodes.*--fit\.best-by last"):
        fit(data, config, FIT, Split((0, 1), ()), tmp_path)
    assert not any(tmp_path.iterdir())
    fitted = fit(data, config, replace(FIT, best_by="last"), Split((0, 1), ()), tmp_path)
    assert fitted.best == fitted.last
    assert fitted.best_step == 2
    assert not (tmp_path / "best").exists()


def test_a_share_of_0_says_last_in_the_case(data, tmp_path):
    options = TrainConfig(backbone=BackboneConfig(width=32, depth=1), head=HeadConfig(kind="fc", width=16),
                          history=HistoryConfig(kind="one-step", window=1), chunk=2, validation_share=0.0, fit=FIT)  # fmt: skip
    train(data.folder, options, tmp_path / "run")
    case = json.loads((tmp_path / "run" / "case.json").read_text())
    assert (case["best_by"], case["best_step"], case["best_value"]) == ("last", 2, None)


def test_choosing_by_success_without_a_simulator_is_refused_before_data_are_read(tmp_path):
    with pytest.raises(FailsightError, match="name one with --sim"):
        train(tmp_path / "no-data", TrainConfig(fit=replace(FIT, best_by="success")), tmp_path / "run")


def test_a_score_that_is_not_a_number_is_never_the_best():
    nan, inf = float("nan"), float("inf")
    assert better(-2.0, nan)
    assert better(0.5, 0.25)
    assert not better(0.25, 0.25)
    assert not any(better(score, best) for score in (nan, inf, -inf) for best in (nan, 0.5))


def test_validation_losses_that_are_not_numbers(data, tmp_path, monkeypatch):
    nan = float("nan")
    config, options = make_config(data, "tiny", "", "fc", "one-step", "full"), replace(FIT, steps=5, evaluate_every=1)
    found = iter([nan, 0.5, float("inf"), 0.25, nan])
    monkeypatch.setattr(Training, "validation", lambda self: {"total": next(found)})
    fitted = fit(data, config, options, SPLIT, tmp_path / "some")
    assert (fitted.best_step, fitted.best_value) == (4, 0.25)
    monkeypatch.setattr(Training, "validation", lambda self: {"total": nan})
    with pytest.raises(FailsightError, match="No validation figure of this training was a number"):
        fit(data, config, options, SPLIT, tmp_path / "none")
    assert not (tmp_path / "none" / "best").exists()
    assert load_model(tmp_path / "none" / "last")
    json.loads((tmp_path / "none" / "last" / "training.json").read_text(), parse_constant=lambda name: 1 / 0)


def test_the_windows_behind_such_a_loss_are_named(data, tmp_path):
    training = Training(
        data, make_config(data, "tiny", "", "fc", "one-step", "full"), FIT, SPLIT, tmp_path, None, None, Hooks()
    )
    states = np.array(data.states)
    states[data.episodes[2].first + 4] = np.nan
    training.valid._data = replace(data, states=states)
    assert not np.isfinite(training.validation()["total"])
    assert training._unsound == {"episode-2:4"}


# ---------------------------------------------------------------------------------------- nothing unsound is kept


def test_a_gradient_that_is_not_finite_stops_before_the_step(data, tmp_path):
    def loss(logits, fails, mask):  # 0 and finite; its derivative at 0 is not
        return (logits * 0).abs().sqrt().sum()

    config = make_config(data, "tiny", "", "fc", "one-step", "full", failure=True)
    config = replace(config, failure=replace(config.failure, gradient=1.0))
    with pytest.raises(FailsightError, match=r"The gradient is not finite at step 0.*episode-\d:\d"):
        fit(data, config, FIT, SPLIT, tmp_path, hooks=Hooks(failure_loss=loss))
    assert not (tmp_path / "last").exists()


def test_weights_that_are_not_finite_are_never_saved(data, tmp_path):
    config = make_config(data, "tiny", "", "fc", "one-step", "full")
    options = replace(
        FIT, learning_rate=1e30, weight_decay=3.3e8, clip=0.0, warmup=0, schedule="constant", save_every=1
    )
    with pytest.raises(FailsightError, match=r"weight .* is not finite, the training has diverged"):
        fit(data, config, options, SPLIT, tmp_path)
    assert not (tmp_path / "last").exists()


def test_statistics_that_are_not_finite_are_refused(data, tmp_path):
    config = make_config(data, "tiny", "", "fc", "one-step", "full")
    state = {**config.statistics["state"], "mean": [0.0, float("nan")]}
    bad = replace(config, statistics={**config.statistics, "state": state})
    with pytest.raises(FailsightError, match="give nan as mean of state entry 1"):
        fit(data, bad, FIT, SPLIT, tmp_path)
    require_finite_statistics(config.statistics)


def test_too_many_steps_left_out_by_the_scaler_are_an_error():
    skips = Skips()
    for step in range(200):
        skips.count(step % 3 == 0, step)
    assert skips.total == 67
    for step in range(49):
        skips.count(True, step)
    with pytest.raises(FailsightError, match="beyond float16 at every scale"):
        skips.count(True, 49)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_float16_without_a_gpu_is_one_sentence(data, tmp_path):
    config = make_config(data, "tiny", "", "fc", "one-step", "full")
    with pytest.raises(FailsightError, match="needs a GPU"):
        fit(data, config, replace(FIT, precision="fp16"), SPLIT, tmp_path)


# -------------------------------------------------------------------------------------------------------- identities


def as_bin(base):
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()


def as_shards(base):
    tensors = load_file(base / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, base / file, metadata={"format": "pt"})
    table = {name: file for file, part in parts.items() for name in part}
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    (base / "model.safetensors").unlink()


def as_named(base):
    (base / "model.safetensors").rename(base / "own.safetensors")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "transformers_weights": "own.safetensors"}))


@pytest.mark.parametrize("form", [lambda base: None, as_bin, as_shards, as_named])
def test_other_base_weights_are_refused_whatever_their_form(data, llava, tmp_path, form):
    base = copy(llava, tmp_path / "base")
    form(base)
    last = fit(data, make_config(data, "llava", base, "fc", "one-step"), FIT, SPLIT, tmp_path / "run").last
    load_model(last)
    moved = copy(base, tmp_path / "elsewhere")
    load_model(last, source=str(moved))
    file = weight_files(base)[-1]
    loaded = torch.load(file, weights_only=True) if file.suffix == ".bin" else load_file(file)
    loaded[sorted(loaded)[0]][0] += 1e-3
    torch.save(loaded, file) if file.suffix == ".bin" else save_file(loaded, file, metadata={"format": "pt"})
    with pytest.raises(FailsightError, match="was trained on base weights"):
        load_model(last)


@pytest.mark.parametrize(
    ("file", "entry", "value", "part"),
    [
        ("preprocessor_config.json", "image_mean", [0.5, 0.46, 0.41], "picture scaling"),
        ("config.json", "vision_feature_layer", -1, "configuration"),
        ("tokenizer.json", "added", "x", "tokenizer"),
    ],
)
def test_a_base_is_more_than_its_weights(data, llava, low_rank, tmp_path, file, entry, value, part):
    base = copy(llava, tmp_path / "base")
    path = base / file
    path.write_text(json.dumps({**json.loads(path.read_text()), entry: value}))
    with pytest.raises(FailsightError, match=f"was trained on base {part}"):
        load_model(low_rank, source=str(base))
    version = base / "config.json"
    version.write_text(json.dumps({**json.loads((llava / "config.json").read_text()), "transformers_version": "9"}))
    shutil.copy(llava / file, path) if file != "config.json" else None
    load_model(low_rank, source=str(base))


def test_a_checkpoint_of_an_earlier_version_still_checks_what_it_recorded(low_rank, llava, tmp_path):
    import hashlib

    folder = copy(low_rank, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    del config["provenance"]["base"]
    weights = (llava / "model.safetensors").read_bytes()
    for recorded in (hashlib.blake2b(weights, digest_size=8).hexdigest(), "0" * 16):
        config["provenance"]["base_hash"] = recorded
        (folder / "config.json").write_text(json.dumps(config))
        if recorded == "0" * 16:
            with pytest.raises(FailsightError, match="base weights 0000"):
                load_model(folder)
        else:
            load_model(folder)


def test_a_hub_id_is_its_cached_files_at_that_revision(data, llava, tmp_path, monkeypatch):
    """The id and "main" say nothing: the same name may hold other weights tomorrow."""
    from huggingface_hub import constants

    repository = tmp_path / "models--org--small"
    for commit, seed in (("a" * 40, 0), ("b" * 40, 7)):
        target = repository / "snapshots" / commit
        copy(llava, target)
        if seed:
            change(target / "model.safetensors", lambda t: t[sorted(t)[0]].add_(1.0))
    (repository / "refs").mkdir()
    main = repository / "refs" / "main"
    main.write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = make_config(data, "llava", "org/small", "fc", "one-step")
    assert resolve_source(config.backbone) == repository / "snapshots" / ("a" * 40)
    last = fit(data, config, FIT, SPLIT, tmp_path / "run").last
    load_model(last)
    main.write_text("b" * 40)
    with pytest.raises(FailsightError, match="was trained on base weights"):
        load_model(last)


def test_the_fingerprint_of_a_policy_covers_all_it_is_loaded_from(whole, low_rank, tmp_path):
    for folder, file in ((whole, "backbone/pixels.json"), (whole, "backbone/tokenizer.json"), (whole, "config.json"),
                         (whole, "backbone/weights.safetensors"), (low_rank, "adapter/adapter_model.safetensors")):  # fmt: skip
        other = copy(folder, tmp_path / file.replace("/", "-"))
        assert fingerprint(other) == fingerprint(folder)
        path = other / file
        if file == "config.json":
            path.write_text(json.dumps({**json.loads(path.read_text()), "chunk": 9}))
        else:
            path.write_bytes(path.read_bytes()[:-1] + b" ")
        assert fingerprint(other) != fingerprint(folder), file
    config = json.loads((low_rank / "config.json").read_text())
    config["provenance"]["base"]["tokenizer"] = "another"
    other = copy(low_rank, tmp_path / "base")
    (other / "config.json").write_text(json.dumps(config))
    assert fingerprint(other) != fingerprint(low_rank)


def test_a_training_goes_on_only_with_the_same_split_augmentation_and_base(data, llava, tmp_path):
    base = copy(llava, tmp_path / "base")
    config = make_config(data, "llava", base, "fc", "one-step")
    fit(data, config, FIT, SPLIT, tmp_path / "run", augment=Augment())
    fit(data, config, FIT, SPLIT, tmp_path / "run", augment=Augment())
    for named, split, augment in (("split", Split((0,), (2,)), Augment()), ("settings", SPLIT, Augment(gain=0.3))):
        with pytest.raises(FailsightError, match=f"holds a training with other {named}"):
            fit(data, config, FIT, split, tmp_path / "run", augment=augment)
    worded = replace(data, phrasings={data.instructions[0]: ["otherwise"]})
    with pytest.raises(FailsightError, match="holds a training with other wordings"):
        fit(worded, config, FIT, SPLIT, tmp_path / "run", augment=Augment())
    change(base / "model.safetensors", lambda t: t[sorted(t)[0]].add_(1.0))
    with pytest.raises(FailsightError, match="holds a training with other base"):
        fit(data, config, FIT, SPLIT, tmp_path / "run", augment=Augment())


# ------------------------------------------------------------------------------------------------ words and labels


def test_words_that_mean_nothing_do_not_mean_something_else(data):
    config = make_config(data, "tiny", "", "fc", "one-step", "full")
    with pytest.raises(UnknownNameError, match="schedule 'cosin'"):
        rate("cosin", 0, 0, 9)
    with pytest.raises(UnknownNameError, match="sampling 'shuffled'"):
        rows_of(Plan("shuffled", 2, 1, 1, 0), 9, 0, 0, 0)
    with pytest.raises(UnknownNameError, match="part to train 'head'"):
        VLAModel(config).train_only("head")
    with pytest.raises(UnknownNameError, match="tuning 'lorra'"):
        VLAModel(replace(config, backbone=replace(config.backbone, tuning="lorra")))
    with pytest.raises(FailsightError, match="no failure head to train alone"):
        VLAModel(config).train_only("failure")


def test_a_failure_head_needs_labels_and_a_rate(data, tmp_path):
    config = make_config(data, "tiny", "", "fc", "one-step", "full", failure=True)
    plain = make_data(tmp_path / "plain")
    with pytest.raises(
        FailsightError, match=r"learns from failure labels, and the training episodes of test data have none"
    ):
        fit(plain, config, FIT, SPLIT, tmp_path / "run")
    unknown = np.full(len(plain.actions), np.nan, np.float32)
    with pytest.raises(FailsightError, match="learns from failure labels"):
        fit(replace(plain, fails=unknown, left=unknown), config, FIT, SPLIT, tmp_path / "run")
    some = unknown.copy()
    some[3] = 1.0
    fit(replace(plain, failing=some), config, FIT, SPLIT, tmp_path / "some")
    still = replace(config, action_spec=replace(config.action_spec, rate_hz=0.0))
    with pytest.raises(FailsightError, match="counts in seconds"):
        VLAModel(still)


def test_data_that_says_less_far_ahead_than_the_policy_predicts(data):
    config = make_config(data, "tiny", "", "fc", "one-step", "full", chunk=2)
    short = replace(data, chunks=np.zeros((len(data.actions), 1, 3), np.float32))
    with pytest.raises(
        SpecMismatchError, match="for 1 steps from each frame and the policy predicts 2; set --chunk to 1"
    ):
        Windows(short, config, (0,), None)


def test_wordings_of_nothing_in_the_data_are_refused(data, tmp_path):
    table = tmp_path / "words.json"
    table.write_text(json.dumps({"fly to the moon": ["off we go"]}))
    with pytest.raises(FailsightError, match="words none of the instructions of test data otherwise"):
        train(data.folder, TrainConfig(paraphrases=table, fit=FIT), tmp_path / "run")


def test_a_split_is_known_of_the_data_it_was_made_from(data, tmp_path):
    options = TrainConfig(backbone=BackboneConfig(width=32, depth=1), head=HeadConfig(kind="fc", width=16),
                          history=HistoryConfig(kind="one-step", window=1), chunk=2, validation_share=0.4, fit=FIT)  # fmt: skip
    last = train(data.folder, options, tmp_path / "run").last
    other = make_data(tmp_path / "other", labels=True, seed=4)
    with pytest.raises(FailsightError, match="nobody knows its split"):
        validation_error(last, other.folder, "train")
    assert np.isfinite(validation_error(last, other.folder, "all").value)


def test_weights_that_are_not_numbers_are_not_loaded(whole, data, tmp_path):
    tiny = fit(data, make_config(data, "tiny", "", "fc", "one-step", "full"), FIT, SPLIT, tmp_path / "tiny").last
    for folder, file in ((whole, "backbone/weights.safetensors"), (whole, "head.safetensors"),
                         (tiny, "backbone.safetensors"), (CHECKPOINTS / "tabletop-weak", "head.safetensors")):  # fmt: skip
        broken = copy(folder, tmp_path / f"{folder.name}-{file.replace('/', '-')}")
        change(broken / file, lambda t: t[sorted(t)[0]].view(-1)[0].fill_(float("nan")))
        with pytest.raises(FailsightError, match="holds weights that are not finite"):
            load_model(broken)
