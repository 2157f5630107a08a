"""`failsight verify`: what is whole passes, what was touched is named, with its episode."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from test_store import make_run

from failsight.cli.main import main
from failsight.core.errors import EpisodeDataError
from failsight.episodes.run import Run
from failsight.episodes.verify import verify_run
from failsight.storage.checksums import PLACE
from failsight.storage.parquet import read_table, write_table

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/failsight/episodes.parquet"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    root = tmp_path_factory.mktemp("sealed") / "run"
    make_run(root, episodes=3, video=1.0)
    return root


@pytest.fixture
def run(sealed, tmp_path):
    return shutil.copytree(sealed, tmp_path / "run")


def flip(path, at=0.5):
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 4
    path.write_bytes(data)


def test_a_whole_run_passes(run, capsys):
    found = verify_run(run)
    assert (found.has_checksums, found.damages) == (True, ())
    assert found.files == sum(1 for p in run.rglob("*") if p.is_file()) - 1
    main(["verify", str(run)])
    assert "all as they were sealed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "episodes"),
    [
        ("meta/info.json", ()),
        ("meta/stats.json", ()),
        ("meta/tasks.parquet", ()),
        ("meta/episodes/chunk-000/file-000.parquet", ()),
        ("meta/failsight/run.json", ()),
        ("meta/failsight/episodes.parquet", ()),
        ("meta/failsight/events.parquet", ()),
        ("data/chunk-000/file-000.parquet", (1,)),
        ("videos/observation.images.agent/chunk-000/file-002.mp4", (2,)),
    ],
)
def test_a_flipped_bit_is_named_with_its_episode(run, name, episodes, capsys):
    flip(run / name, 0.4)
    (damage,) = verify_run(run).damages
    assert damage.file == name
    assert damage.episodes[: len(episodes)] == episodes
    with pytest.raises(SystemExit) as exit_:
        main(["verify", str(run)])
    assert exit_.value.code == 2
    assert name in capsys.readouterr().out


def test_files_lost_swapped_and_added_are_named(run):
    videos = run / "videos/observation.images.agent/chunk-000"
    (videos / "file-000.mp4").rename(videos / "x")
    (videos / "file-001.mp4").rename(videos / "file-000.mp4")
    (videos / "x").rename(videos / "file-001.mp4")
    (videos / "file-002.mp4").unlink()
    shutil.copy(run / "data/chunk-000/file-000.parquet", run / "data/chunk-000/file-001.parquet")
    (run / "data/.DS_Store").write_text("")
    (run / "notes.txt").write_text("mine")
    problems = {d.file.rsplit("/", 1)[1]: d.problem for d in verify_run(run).damages}
    assert problems["file-000.mp4"] == problems["file-001.mp4"] == "its SHA-256 differs"
    assert "No such file" in problems["file-002.mp4"]
    assert "does not belong" in problems["file-001.parquet"]
    assert len(problems) == 4


def test_a_run_without_checksums_says_so(run, capsys):
    (run / PLACE).unlink()
    main(["verify", str(run)])
    assert "no checksums" in capsys.readouterr().out
    flip(run / "data/chunk-000/file-000.parquet")
    assert [d.file for d in verify_run(run).damages] == ["data/chunk-000/file-000.parquet"]


def test_a_damaged_list_of_checksums_is_the_damage(run):
    text = (run / PLACE).read_text()
    (run / PLACE).write_text(text.replace("meta/info.json", "meta/info.jsom"))
    (damage,) = verify_run(run).damages
    assert damage.file == PLACE
    with pytest.raises(EpisodeDataError, match=r"checksums\.json was changed"):
        Run(run)


def test_an_edited_plan_is_refused_by_every_reader(run):
    path = run / "meta/failsight/run.json"
    path.write_text(path.read_text().replace('"rate_hz": 20.0', '"rate_hz": 10.0'))
    with pytest.raises(EpisodeDataError, match=r"run\.json is not what was sealed"):
        Run(run)
    (run / PLACE).unlink()
    assert Run(run).meta.action_spec.rate_hz == 10, "without checksums it is believed"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda run: run["plan"].pop(), "run.json plans 2"),
        (lambda run: run["plan"].reverse(), "run.json plans home"),
        (lambda run: run["observation_spec"]["state"].pop(), "numbers in observation.state"),
        (lambda run: run["action_spec"]["dimensions"].pop(), "numbers in action"),
        (lambda run: run["shapes"].update({"policy.chunk": [5, 3]}), "numbers in policy.chunk"),
        (lambda run: run.pop("sim"), "no 'sim'"),
        (lambda run: run["plan"][0].update(seed="one"), "plan[0].seed"),
    ],
)
def test_run_json_is_compared_with_the_tables_and_rows(run, change, problem):
    (run / PLACE).unlink()
    path = run / "meta/failsight/run.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(EpisodeDataError) as refusal:
        list(Run(run).read())
    assert problem in str(refusal.value)


def test_files_of_another_run_are_refused_at_each_read(run, tmp_path):
    """The other run has the same plan and lengths: each of its files is whole, and none is this run's."""
    other = make_run(tmp_path / "other", episodes=3, video=0.0).root
    table = read_table(other / DATA)
    action = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(4 * table.num_rows, np.float32)), 4)
    write_table(other / DATA, table.set_column(table.column_names.index("action"), "action", action))
    for name in (DATA, EPISODES):
        copy = shutil.copytree(run, tmp_path / name.replace("/", "-"))
        shutil.copy(other / name, copy / name)
        with pytest.raises(EpisodeDataError, match=r"\.parquet is not what was sealed"):
            list(Run(copy).read())
        (copy / PLACE).unlink()
        list(Run(copy).read())


def test_tables_of_another_plan_are_refused_without_checksums(run, tmp_path):
    other = make_run(tmp_path / "other", episodes=4, video=0.0).root
    for name in (EPISODES, "meta/episodes/chunk-000/file-000.parquet"):
        copy = shutil.copytree(run, tmp_path / name.replace("/", "-"))
        shutil.copy(other / name, copy / name)
        (copy / PLACE).unlink()
        with pytest.raises(EpisodeDataError, match=r"\.parquet .*4 episodes"):
            list(Run(copy).read())


@pytest.mark.parametrize("column", ["index", "frame_index", "episode_index"])
def test_rows_of_another_episode_or_order_are_refused_without_checksums(run, column):
    """Two rows change places in one column of numbers: every file is whole, and the rows are not what the tables say."""
    (run / PLACE).unlink()
    table = read_table(run / DATA)
    values = table.column(column).to_numpy().copy()
    values[[3, -1]] = values[[-1, 3]]
    write_table(run / DATA, table.set_column(table.column_names.index(column), column, pa.array(values)))
    with pytest.raises(EpisodeDataError, match=rf"step 3 of episode 0 has {column}"):
        list(Run(run).read())
