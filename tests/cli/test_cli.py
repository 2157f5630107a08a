import pytest

from failsight.cli.main import COMMANDS, main


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
        "view",
        "label",
        "fit",
        "evaluate",
        "audit",
        "explain",
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
        (("collect", "--out", "/tmp/x", "--suite", "tabeltop"), "Unknown simulator"),
        (("evaluate", "detection", "/nowhere", "--bundle", "/nowhere"), "not a"),
        (("evaluate", "detction", "/nowhere"), "Did you mean detection"),
        (("import", "actprobee", "/nowhere", "--out", "/tmp/x"), "Did you mean actprobe"),
        (("import", "actprobe", "/nowhere", "--out", "/tmp/x"), "holds no ActProbe log"),
        (("audit", "/nowhere"), "not a failsight run"),
        (("evaluate", "policy", "/nowhere", "--simulator", "navigatoin"), "Did you mean navigation"),
        (("train-policy", "--data", "/nowhere"), "does not exist"),
        (("train-policy", "--data", "/nowhere", "--recipe", "tabletop"), "not both"),
        (("train-policy", "--data", "/nowhere", "--against", "tabletop-weak"), "name one with --simulator"),
        (("train-policy", "--data", "/nowhere", "--simulator", "tabeltop"), "Did you mean tabletop"),
        (("demonstrate", "/tmp/x", "--scenarios", "1box_vert_lfet"), "Did you mean 1box_vert_left"),
        (("demonstrate", "/tmp/x", "--actions", "4"), "2 or 3 dimensions"),
        (("cases", "/nowhere"), "No trained policies"),
        (("failure-tokens", "check", "/nowhere"), "not a failsight run"),
        (("serve", "/nowhere"), "Unknown policy"),
        (("outcomes", "/nowhere"), "not an outcome file"),
        (("run", "bench-real", "--data", "/nowhere"), "No logs found in /nowhere"),
        (("fit", "/nowhere.json"), "not a JSON list"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(arguments, message, capsys):
    assert call(*arguments) == 2
    out = capsys.readouterr().out
    assert message in " ".join(out.split())
    assert "Traceback" not in out


def test_doctor_runs(capsys):
    main(["doctor"])
    assert "rendering" in capsys.readouterr().out
