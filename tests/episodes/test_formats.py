"""A path is recognised as what it is, by what is in it, and a format is one row of a table."""

import json

import pytest
from conftest import write_json_log

from failsight.core.errors import EpisodeDataError, UnknownNameError
from failsight.core.registry import load
from failsight.episodes.formats import DEMONSTRATIONS, LOGS
from failsight.episodes.formats.format import recognise
from failsight.workflows.data_sets import is_training_data
from failsight.workflows.import_logs import read_log


@pytest.mark.parametrize(("table", "name"), [(table, name) for table in (LOGS, DEMONSTRATIONS) for name in table])
def test_every_row_is_a_format_of_its_name_that_finds_nothing_in_nothing(tmp_path, table, name):
    format = load(table[name])
    assert format.name == name
    assert format.sniff(tmp_path) == ""
    assert format.sniff(tmp_path / "nowhere") == ""


def test_a_log_says_what_was_found(tmp_path):
    folder = write_json_log(tmp_path / "log", count=12)
    failed = sum(not e.success for e in read_log(folder).log.episodes)
    count = len(list(folder.glob("*.jsonl")))
    said = read_log(folder).found
    assert said == f"{count} JSON lines files in ActProbe's layout, 12 episodes, {failed} failed, 4 signals"


def test_nothing_recognised_says_what_was_tried_and_the_next_step(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(EpisodeDataError, match=r"holds no log.*tried actprobe.*--map success="):
        read_log(tmp_path)
    with pytest.raises(EpisodeDataError, match=r"nowhere does not exist"):
        read_log(tmp_path / "nowhere")
    with pytest.raises(UnknownNameError, match="Did you mean actprobe"):
        read_log(tmp_path, "actprob")
    assert not is_training_data(tmp_path)


def test_two_formats_in_one_folder_are_both_named(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text(json.dumps({"codebase_version": "v3.0"}))
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(EpisodeDataError, match=r"several ways: 1 Mobile-VLA HDF5 files \(mobile-vla\), a LeRobot"):
        recognise(tmp_path, DEMONSTRATIONS, "data")
