import errno
import os
import subprocess
import sys

import pytest
from conftest import write_json_log

from failsight.cli.main import COMMANDS, main
from failsight.core.errors import FailsightError


def call(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return caught.value.code


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert call(command, "--help") == 0
    assert command in capsys.readouterr().out


def test_the_commands_are_frozen():
    assert list(COMMANDS) == [
        "run",
        "collect",
        "import",
        "episodes",
        "verify",
        "view",
        "label",
        "fit",
        "evaluate",
        "audit",
        "explain",
        "limits",
        "report",
        "demonstrate",
        "train-policy",
        "cases",
        "failure-tokens",
        "serve",
        "outcomes",
        "doctor",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "dmeo"), "Did you mean demo"),
        (("episodes", "/nowhere"), "not a failsight run"),
        (("report", "/nowhere"), "no summary.json"),
        (("train-policy", "--recipe", "tabeltop"), "Did you mean tabletop"),
        (("collect", "--out", "/tmp/x", "--tasks", "pick-red-cube-lef"), "pick-red-cube-left"),
        (("collect", "--out", "/tmp/x", "--sim", "tabeltop"), "Unknown simulator"),
        (("evaluate", "detection", "/nowhere", "--bundle", "/nowhere"), "not a"),
        (("evaluate", "detction", "/nowhere"), "Did you mean detection"),
        (("import", "/nowhere", "--out", "/tmp/x", "--format", "actprobee"), "Did you mean actprobe"),
        (("import", "/nowhere", "--out", "/tmp/x"), "/nowhere does not exist"),
        (("audit", "/nowhere"), "not a failsight run"),
        (("evaluate", "policy", "/nowhere", "--sim", "navigatoin"), "Did you mean navigation"),
        (("train-policy", "--data", "/nowhere"), "does not exist"),
        (("train-policy", "--data", "/nowhere", "--recipe", "tabletop"), "not both"),
        (("train-policy", "--data", "/nowhere", "--against", "tabletop-weak"), "name one with --sim"),
        (("train-policy", "--data", "/nowhere", "--sim", "tabeltop"), "Did you mean tabletop"),
        (("demonstrate", "/tmp/x", "--tasks", "1box_vert_lfet"), "Did you mean 1box_vert_left"),
        (("demonstrate", "/tmp/x", "--sim", "navigation-4d"), "Did you mean navigation-2d"),
        (("demonstrate", "/tmp/x", "--sim", "libero"), "Nobody demonstrates in libero"),
        (("cases", "/nowhere"), "No trained policies"),
        (("failure-tokens", "check", "/nowhere"), "not a failsight run"),
        (("serve", "/nowhere"), "Unknown policy"),
        (("outcomes", "/nowhere"), "not an outcome file"),
        (("run", "bench-real", "--data", "/nowhere"), "No logs found in /nowhere"),
        (("fit", "/nowhere.json"), "not a JSON list"),
        (("collect", "--out", "/nowhere/x", "--trials", "0"), "--trials is 0; it takes 1 to 10,000."),
        (("collect", "--out", "/nowhere/x", "--trials", "-1"), "--trials is -1"),
        (("collect", "--out", "/nowhere/x", "--trials", "1e9"), "invalid literal for int"),
        (("collect", "--out", "/nowhere/x", "--trials", "1000000000"), "--trials is 1000000000"),
        (("collect", "--out", "/nowhere/x", "--workers", "0"), "--workers is 0"),
        (("collect", "--out", "/nowhere/x", "--seeds", "0", "0"), "--seeds has 0 twice"),
        (("collect", "--out", "/nowhere/x", "--tasks", "a", "a"), "--tasks has a twice"),
        (("collect", "--out", "/nowhere/x", "--video", "2"), "--video is 2.0; it takes 0 to 1."),
        (("collect", "--out", "/nowhere/x", "--video", "nan"), "--video is nan"),
        (("demonstrate", "/nowhere/x", "--episodes", "-3"), "--episodes is -3"),
        (("serve", "tabletop-strong", "--port", "99999"), "--port is 99999; it takes 0 to 65,535."),
        (("fit", "/nowhere", "--alpha", "0"), "--alpha is 0.0; it takes a number above 0 and below 1."),
        (("fit", "/nowhere", "--alpha", "1"), "--alpha is 1.0"),
        (("fit", "/nowhere", "--alpha", "2"), "--alpha is 2.0"),
        (("fit", "/nowhere", "--alpha", "nan"), "--alpha is nan"),
        (("train-policy", "--data", "/nowhere", "--fit.steps", "0"), "--fit.steps is 0"),
        (("train-policy", "--data", "/nowhere", "--fit.learning-rate", "nan"), "--fit.learning-rate is nan"),
        (("train-policy", "--data", "/nowhere", "--augment.crop", "2"), "--augment.crop is 2.0"),
        (("outcomes", "/dev/zero"), "is not a file"),
        (("episodes", "/nowhere/[/x]"), "/nowhere/[/x] is not a failsight run"),
        (("episodes", "/nowhere/[bold]x"), "/nowhere/[bold]x is not a failsight run"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(arguments, message, capsys):
    assert call(*arguments) == 2
    out = "".join(capsys.readouterr())
    assert message in " ".join(out.split())
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "not a summary that failsight wrote"),
        ("[1]", "not an object"),
        ("{", "not JSON"),
        ('{"kind": "bench"}', "not a summary that failsight wrote"),
        ('{"kind": "study", "tables": 3}', "not a summary that failsight wrote"),
        ('{"kind": ["x"]}', "not a summary that failsight wrote"),
        ("\x00", "not JSON"),
    ],
)
def test_a_foreign_summary_is_refused_by_name(text, message, tmp_path, capsys):
    (tmp_path / "summary.json").write_text(text)
    assert call("report", str(tmp_path)) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert message in out
    assert "summary.json" in out
    assert not (tmp_path / "report.html").exists()


def test_a_bracketed_extra_is_printed_whole(monkeypatch, capsys):
    def refuse(folder):
        raise FailsightError("install it with: pip install 'failsight[libero]'")

    monkeypatch.setattr("failsight.reports.html.write_report", refuse)
    assert call("report", "x") == 2
    assert "failsight[libero]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/summary.json"),
            "No space left on device (/x/summary.json)",
        ),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "Read-only file system (/x)"),
        (MemoryError(), "Out of memory"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(error, message, monkeypatch, capsys):
    def refuse(folder):
        raise error

    monkeypatch.setattr("failsight.reports.html.write_report", refuse)
    assert call("report", "x") == 2
    assert message in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "target", "message"),
    [
        (("report", "x"), "failsight.reports.html.write_report", "start the same command again"),
        (("run", "demo"), "failsight.recipes.runs.run_recipe", "the same command goes on where it stopped"),
        (("collect", "--out", "x"), "failsight.workflows.plans.make_plan", "the same command with --resume goes on"),
        (("serve", "x"), "failsight.workflows.serve.make_server", "the server has stopped"),
    ],
)
def test_an_interrupt_says_what_this_command_leaves_behind(arguments, target, message, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(target, interrupt)
    assert call(*arguments) == 130
    assert message in capsys.readouterr().out


def run_process(arguments, code="", **environment):
    program = f"import sys\n{code}\nfrom failsight.cli.main import main\nmain({list(arguments)!r})"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("variable", "value", "advice"),
    [
        ("MUJOCO_EGL_DEVICE_ID", "7", "unset it, or set it to 0"),
        ("MUJOCO_GL", "foo", "unset it, or set it to egl or osmesa"),
    ],
)
def test_a_wrong_variable_of_the_renderer_is_named_with_what_to_do(variable, value, advice, tmp_path):
    collect = [
        "collect",
        "--out",
        str(tmp_path / "r"),
        "--trials",
        "1",
        "--workers",
        "1",
        "--tasks",
        "pick-red-cube-left",
    ]
    for arguments in (collect, ["doctor"]):
        result = run_process(arguments, **{variable: value})
        text = " ".join((result.stdout + result.stderr).split())
        assert result.returncode == 2
        assert f"{variable} is {value!r}" in text
        assert advice in text
        assert "Traceback" not in text
        assert ("failsight doctor" in text) == (arguments is collect)
    assert not (tmp_path / "r").exists()


def test_the_doctor_needs_no_torch():
    hide = """
import importlib.abc
import importlib.metadata as m
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'torch':
            raise ModuleNotFoundError('No module named torch', name='torch')
sys.meta_path.insert(0, Hidden())
real = m.version
def version(name):
    if name == 'torch':
        raise m.PackageNotFoundError(name)
    return real(name)
m.version = version
"""
    result = run_process(["doctor"], hide)
    assert result.returncode == 0, result.stderr
    assert "failsight[train]" in result.stdout


def test_doctor_runs(capsys):
    main(["doctor"])
    assert "rendering" in capsys.readouterr().out


def test_a_format_may_stand_before_the_path_of_a_log(tmp_path, capsys):
    write_json_log(tmp_path / "log")
    for i, words in enumerate((("actprobe", str(tmp_path / "log")), (str(tmp_path / "log"), "--format", "actprobe"))):
        main(["import", *words, "--out", str(tmp_path / f"run{i}")])
        assert "read as actprobe" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["import", "actprob", str(tmp_path / "log"), "--out", str(tmp_path / "other")])
    assert stop.value.code == 2
    assert "Did you mean actprobe" in capsys.readouterr().out
