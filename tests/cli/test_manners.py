"""What a newcomer meets at the command line: groups, flags without noise, a next step, and nothing started by surprise."""

from importlib.metadata import version

import pytest
from conftest import make_log_run

from failsight.cli.flags import GROUPS
from failsight.cli.main import COMMANDS, main


def said(capsys, *words, code=0):
    try:
        main(list(words))
        found = 0
    except SystemExit as end:
        found = int(end.code or 0)
    assert found == code
    out, err = capsys.readouterr()
    return " ".join((out + err).split())


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_said(capsys, flag):
    assert said(capsys, flag) == f"failsight {version('failsight')}"


def test_every_command_stands_in_one_group(capsys):
    grouped = [name for group in GROUPS.values() for name in group]
    assert sorted(grouped) == sorted(COMMANDS)
    page = said(capsys, "--help")
    for name, group in GROUPS.items():
        assert f"{name}: {', '.join(group)}" in page


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_optional_flags_show_their_kind_and_nothing_else(capsys, name):
    assert "{None}" not in said(capsys, name, "--help")


def test_an_optional_flag_is_still_read_by_its_kind(capsys):
    refused = said(capsys, "run", "demo", "--seed", "seven", code=2)
    assert "--seed" in refused
    assert "seven" in refused


def test_training_starts_from_what_was_named_and_not_from_a_guess(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--data FOLDER" in said(capsys, "train-policy", code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_log_run(tmp_path_factory.mktemp("manners") / "run", count=12)


def test_tokens_are_set_only_where_a_person_said(capsys, run):
    for given in ((), ("--episode", "1"), ("--episode", "1", "--first", "2")):
        asked = said(capsys, "failure-tokens", "set", str(run.root), *given, code=2)
        assert "--episode N --first A --last B" in asked
    assert not (run.root / "labels" / "failure_tokens").exists()


def test_tokens_made_without_a_known_onset_come_with_a_warning(capsys, run):
    lost = sum(meta.outcome == "failure" for meta in run.episodes)
    assert lost
    page = said(capsys, "failure-tokens", "create", str(run.root))
    assert f"of {lost} failed episodes nobody knows when they were lost" in page


@pytest.mark.parametrize("words", [("episodes",), ("label",), ("failure-tokens", "create")])
def test_a_command_ends_with_the_next_step(capsys, run, words):
    assert "Next: failsight " in said(capsys, *words, str(run.root))
