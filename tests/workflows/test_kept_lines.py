"""Files that an interrupted experiment goes on from, damaged: what is whole is used, the rest is refused by its line."""

import json

import pytest

from failsight.core.errors import EpisodeDataError
from failsight.core.types import EpisodeKey, Outcome
from failsight.evaluation.paired import PairedEpisode
from failsight.recipes.interventions.fork_records import read_records, record_json
from failsight.workflows.closed_loop import Drive, _keep, _kept
from failsight.workflows.forks import ForkRecord

KEY = EpisodeKey(seed=1, task="home", episode=2)
NONE = PairedEpisode(
    task="home",
    outcome=Outcome.SUCCESS,
    collision=False,
    triggered=False,
    steps=3,
    intervened_steps=0,
    human_steps=0,
)
RECORD = ForkRecord(key=KEY, none=NONE, trigger_step=None, arms={}, again=None)
STAMP = {"policy": "p", "sim": "s", "change": "none"}
DAMAGE = [
    ("none", []),
    ("none", 3),
    ("trigger", None),
    ("key", {"seed": 1}),
    ("key", {"seed": 1, "task": "a", "episode": 0, "perturbations": "push:9"}),
]


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


def test_fork_records_come_back_and_a_cut_line_is_left_out(tmp_path):
    path = tmp_path / "arms.jsonl"
    path.write_text(lines({"stamp": "a"}, record_json(RECORD)) + '{"key": ')
    assert list(read_records(path, "a")) == [RECORD]
    assert list(read_records(path, "b")) == []
    assert not path.exists()


@pytest.mark.parametrize(("name", "value"), DAMAGE)
def test_a_damaged_fork_record_is_refused_by_its_line(tmp_path, name, value):
    record = record_json(RECORD)
    if name == "trigger":
        del record["trigger_step"]
    else:
        record[name] = value
    path = tmp_path / "arms.jsonl"
    path.write_text(lines({"stamp": "a"}, record, record_json(RECORD)))
    with pytest.raises(EpisodeDataError, match=r"arms\.jsonl is damaged at line 2"):
        list(read_records(path, "a"))


def test_a_stamp_that_is_no_object_is_one_sentence(tmp_path):
    path = tmp_path / "arms.jsonl"
    path.write_text('["stamp"]\n{}\n')
    with pytest.raises(EpisodeDataError, match=r"arms\.jsonl:1 holds no JSON object"):
        list(read_records(path, "a"))


def test_drives_come_back_and_a_damaged_one_is_refused_by_its_line(tmp_path):
    path, drive = tmp_path / "drives.jsonl", Drive(KEY, True, False, "", 7)
    _keep(path, STAMP, drive)
    assert list(_kept(path, STAMP)) == [drive]
    assert list(_kept(path, {**STAMP, "sim": "other"})) == []
    with path.open("a") as file:
        file.write(lines({**STAMP, "seed": 1}))
    with pytest.raises(EpisodeDataError, match=r"drives\.jsonl is damaged at line 2"):
        list(_kept(path, STAMP))
