"""Command lines of people in a hurry: one sentence and exit code 2, or what was asked; no traceback, nothing half-written."""

import inspect
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import tyro
from conftest import make_log_run
from fuzz_budget import at_most, cases

from failsight.cli.main import COMMANDS, main

INTEGERS = ("0", "-1", "-3", "1", "2", "3", "99999", "1000000000", "9223372036854775808", "1e9", "two")
FLOATS = ("nan", "inf", "-inf", "0", "-0.5", "0.5", "1", "2", "1e-320", "x")
TEXTS = (
    *(
        "",
        " ",
        "[/x]",
        "failsight[libero]",
        "[bold]x",
        "\u00e9\u4e2d\U0001f600",
        "none",
        "push:9",
        "light:2+",
        "default",
    ),
    *("tabletop", "tabletop-strong", "navigation", "metaworld", "task_0", "detection", "policy", "actprobe", "clock"),
    *("ledger", "drop", "demo", "bench-real", "\udcff", "ws://127.0.0.1:1", "ws://[", "a=b", "=", "random_numbers"),
)
PATHS = (
    "/nowhere",
    "/nowhere/[/x]",
    "/proc/1/mem",
    "/dev/null",
    "/dev/full",
    "/sys/x",
    ".",
    "a/b/../c",
    "\udcff",
    "RUN",
)
WRONG = {"workers": "0", "trials": "-1", "alpha": "nan", "port": "-1"}
"""A last flag that stops commands which would really start, whatever came before."""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return make_log_run(tmp_path_factory.mktemp("fuzz") / "[run]", count=12, hidden=2, tasks=2).root


def values(rng, hint, run):
    """Words of one argument of this type, many of them wrong."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    options = [kind for kind in get_args(hint) if kind is not type(None)]
    if get_origin(hint) is Literal:
        return [str(rng.choice([*options, "chek"]))]
    if get_origin(hint) is tuple:
        return [word for _ in range(rng.integers(1, 3)) for word in values(rng, options[0], run)]
    if options:
        return values(rng, options[0], run)
    words = {int: INTEGERS, float: FLOATS, str: TEXTS, Path: (*PATHS, "RUN", "RUN")}[hint]
    return [str(rng.choice(words)).replace("RUN", str(run))]


def command_line(case, run):
    rng = np.random.default_rng([77, case])
    name = list(COMMANDS)[rng.integers(len(COMMANDS))]
    hints = get_type_hints(COMMANDS[name], include_extras=True)
    words, last = [name], []
    for parameter, declared in inspect.signature(COMMANDS[name]).parameters.items():
        flag, hint = f"--{parameter.replace('_', '-')}", hints[parameter]
        if tyro.conf.Positional in get_args(hint):
            words += values(rng, hint, run)
        elif parameter == "config":
            words += [[], ["--fit.steps", "0"], ["--augment.crop", "nan"], ["--head.kind", "ltsm"]][rng.integers(4)]
        elif declared.default is declared.empty or rng.random() < 0.35:
            words += [flag] if hint is bool else [flag, *values(rng, hint, run)]
        if parameter in WRONG and not last:
            last = [flag, WRONG[parameter]]
    return words + last


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", cases(250))
def test_a_wrong_command_line_is_one_sentence(case, run_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = command_line(case, run_folder)
    before = files(run_folder)
    try:
        with at_most(20 if case < 3 or words[0] == "doctor" else 5):  # the first cases import everything
            main(words)
        code = 0
    except SystemExit as stop:
        code = stop.code
    out = capsys.readouterr()
    assert code in (0, 2), (words, out)
    assert "Traceback" not in out.out + out.err, words
    if code == 2:
        assert (out.out + out.err).strip(), words
        assert list(tmp_path.rglob("*")) == [], words
        assert files(run_folder) == before, words
