"""`--config FILE`, and the file that every run leaves behind."""

import inspect
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from failsight.cli.main import COMMANDS, main
from failsight.cli.settings import FILE, expand, keep, running, settings_of
from failsight.core.errors import FailsightError
from failsight.policies.vla.design import HeadConfig
from failsight.training.config import TrainConfig


def words(tmp_path, text, *typed, name="collect", command=None):
    file = tmp_path / "experiment.yaml"
    file.write_text(text)
    return expand([command or name, "--config", str(file), *typed], COMMANDS)


def test_a_file_becomes_flags_and_what_is_typed_comes_last(tmp_path):
    text = "command: collect\ntrials: 3\ntasks: [a, b]\nresume: true\nmix: none,push:3\n"
    found = words(tmp_path, text, "--trials", "7")
    assert found == (
        ["collect", "--trials", "3", "--tasks", "a", "b", "--resume", "--mix", "none,push:3", "--trials", "7"]
    )


def test_json_is_read_too(tmp_path):
    assert words(tmp_path, '{"fit": {"steps": 5}, "use_state": false}', name="train-policy") == [
        "train-policy",
        "--fit.steps",
        "5",
        "--no-use-state",
    ]


def test_a_name_in_its_place_is_taken_from_the_file_unless_typed(tmp_path):
    assert words(tmp_path, "name: demo\nworkers: 1\n", "--workers", "2", name="run")[:2] == ["run", "demo"]
    file = tmp_path / "experiment.yaml"
    assert expand(["run", "smoke", f"--config={file}"], COMMANDS) == ["run", "smoke", "--workers", "1"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trails: 3\n", "has no setting 'trails'. Did you mean trials?"),
        ("command: fit\n", "is for failsight fit, not failsight collect"),
        ("- 3\n", "holds no settings"),
        ("a: [\n", "is neither YAML nor JSON"),
        ("tasks: [[1]]\n", "holds a list or table"),
        ("monitor: nowhere\n", "does not exist"),
    ],
)
def test_refusals_name_file_and_setting(tmp_path, text, told):
    with pytest.raises(FailsightError) as error:
        words(tmp_path, text)
    assert told in str(error.value)
    assert str(tmp_path) in str(error.value) or "tasks" in str(error.value)


def test_paths_resolve_against_the_file_and_a_dangling_link_is_called_one(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "best").mkdir()
    found = words(tmp_path, "monitor: bundle\npolicy: best\nout: new\n")
    assert found[1:] == ["--monitor", f"{tmp_path}/bundle", "--policy", f"{tmp_path}/best", "--out", f"{tmp_path}/new"]
    assert words(tmp_path, "policy: tabletop-weak\n")[2] == "tabletop-weak"
    (tmp_path / "gone").symlink_to(tmp_path / "target")
    with pytest.raises(FailsightError, match=f"gone is a link to {tmp_path}/target, which does not exist"):
        words(tmp_path, "monitor: gone\n")


@pytest.mark.parametrize("name", ["collect", "run", "train-policy", "demonstrate", "import"])
def test_what_is_kept_says_every_flag_that_is_not_a_place(tmp_path, name):
    parameters = inspect.signature(COMMANDS[name]).parameters.values()
    running(name, {p.name: p.default for p in parameters if p.default is not p.empty})
    keep(tmp_path)
    flat = expand([name, "--config", str(tmp_path / FILE)], COMMANDS)
    said = {word.removeprefix("--").replace("no-", "", 1) for word in flat if word.startswith("--")}
    required = {p.name for p in parameters if p.default is p.empty}
    assert yaml.safe_load((tmp_path / FILE).read_text())["command"] == name
    assert {key for key in settings_of(COMMANDS[name]) if key != "out" and key not in required} == said - {"out"}


def test_a_training_configuration_survives_the_file(tmp_path, monkeypatch):
    config = TrainConfig(head=HeadConfig(kind="flow"), chunk=4, use_state=False, action_dims=("x", "y"))
    running("train-policy", {"config": config, "data": None})
    keep(tmp_path)
    seen = []
    hint = get_type_hints(COMMANDS["train-policy"], include_extras=True)["config"]

    def train(config=TrainConfig(), data: Path | None = None):  # noqa: B008
        seen.append(config)

    train.__annotations__["config"] = hint
    monkeypatch.setitem(COMMANDS, "train-policy", train)
    main(["train-policy", "--config", str(tmp_path / FILE)])
    assert seen == [config]


def test_an_interrupted_run_has_its_file(tmp_path, monkeypatch):
    out = tmp_path / "run"

    def interrupted(*_, **__):
        out.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("failsight.workflows.collect.collect_run", interrupted)
    with pytest.raises(SystemExit):
        main(["collect", "--out", str(out), "--trials", "3"])
    kept = yaml.safe_load((out / FILE).read_text())
    assert (kept["command"], kept["trials"], kept["mix"]) == ("collect", 3, "default")
