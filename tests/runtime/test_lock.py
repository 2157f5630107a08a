"""Two writers never share a run folder; a dead one leaves it free; what is not ours is neither in the way nor deleted."""

import os
import signal
import subprocess
import sys
import time

import pytest
from test_collect import bench, collect_all, content, make_meta

from failsight.core.errors import FailsightError, StorageError
from failsight.episodes.run import Run
from failsight.runtime.collect import collect, prepare, record_episode
from failsight.storage import lock
from failsight.storage.lock import writing_alone

HOLD = """
import sys, time
from pathlib import Path
from failsight.storage.lock import writing_alone
with writing_alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_collect_is_told_who_holds_the_folder(tmp_path):
    root = tmp_path / "run"
    process = holder(root)
    try:
        with pytest.raises(StorageError, match=rf"being written by process {process.pid} on .* since 20"):
            list(collect(root, make_meta(2), bench, 1))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert len(collect_all(root, 2, workers=1)) == 2, "a killed holder leaves the folder free"
    assert not (root / ".lock").exists()


def test_two_collects_at_once_give_one_whole_run(tmp_path):
    root = tmp_path / "run"
    running = collect(root, make_meta(4), bench, 1)
    next(running)
    with pytest.raises(StorageError, match=f"process {os.getpid()}"):
        list(collect(root, make_meta(4), bench, 1, resume=True))
    assert len(list(running)) == 3
    collect_all(tmp_path / "calm", 4, workers=1)
    assert content(root) == content(tmp_path / "calm")


def test_a_lock_that_was_removed_under_the_waiting_is_not_shared(tmp_path):
    with writing_alone(tmp_path):
        (tmp_path / ".lock").unlink()
        with writing_alone(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_file_was_removed_before_it_was_taken_is_taken_anew(tmp_path, monkeypatch):
    """Its last holder removes the file between opening and locking: a lock on the removed file would exclude nobody."""
    take, removed = lock._lock, []

    def late(descriptor, path):
        if not removed:
            removed.append(path.unlink())
        take(descriptor, path)

    monkeypatch.setattr(lock, "_lock", late)
    with writing_alone(tmp_path):
        with pytest.raises(StorageError, match="being written"), writing_alone(tmp_path):
            pass
        assert (tmp_path / ".lock").exists()


def test_a_refusal_leaves_no_folder_behind(tmp_path):
    with pytest.raises(RuntimeError), writing_alone(tmp_path / "a" / "run"):
        raise RuntimeError
    assert not (tmp_path / "a" / "run").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Choose another"), writing_alone(tmp_path / "file"):
        pass


STRAYS = (".DS_Store", "Thumbs.db", "desktop.ini", "._episode-000001", "notes.txt~", ".notes.txt.swp")


def test_stray_files_do_not_block_a_start_or_a_resume(tmp_path):
    root = tmp_path / "run"
    root.mkdir()
    (root / ".DS_Store").write_text("finder")
    meta = make_meta(3)
    tickets = prepare(root, meta, resume=False)
    record_episode(root, 0.0, bench(), tickets[0])
    (root / "recording/episode-000001.partial").mkdir()
    for name in STRAYS:
        (root / name).write_text("stray")
        (root / "recording" / name).write_text("stray")
    (root / "recording/my notes.txt").write_text("a person's")
    collect_all(root, 3, workers=1, resume=True)
    assert len(Run(root).episodes) == 3
    assert (root / "recording/my notes.txt").read_text() == "a person's"
    assert sorted(p.name for p in root.iterdir() if p.name in STRAYS) == sorted(STRAYS)
    assert not list((root / "recording").glob("episode-*"))


def test_leftovers_of_a_dead_process_are_cleaned_at_the_next_start(tmp_path):
    root = tmp_path / "run"
    collect_all(root, 2, workers=1)
    (root / "recording/episode-000000").mkdir(parents=True)
    (root / "recording/.DS_Store").write_text("finder")
    (root / "sealing/data").mkdir(parents=True)
    (root / "sealing/data/x.parquet").write_text("")
    assert collect_all(root, 2, workers=1, resume=True) == []
    assert sorted(p.name for p in root.iterdir()) == ["data", "meta"]


def test_what_a_person_keeps_in_a_run_survives_sealing(tmp_path):
    root = tmp_path / "run"
    tickets = prepare(root, make_meta(2), resume=False)
    record_episode(root, 0.0, bench(), tickets[0])
    for name in ("data/notes.md", "videos/mine.mp4", "meta/episodes/readme.txt", "labels/mine.csv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("mine")
    collect_all(root, 2, workers=1, resume=True)
    for name in ("data/notes.md", "videos/mine.mp4", "meta/episodes/readme.txt", "labels/mine.csv"):
        assert (root / name).read_text() == "mine"


def test_a_sealed_run_that_lost_its_info_is_not_collected_again(tmp_path):
    root = tmp_path / "run"
    collect_all(root, 2, workers=1)
    (root / "meta/info.json").unlink()
    with pytest.raises(FailsightError, match=r"info\.json"):
        collect_all(root, 2, workers=1, resume=True)
    with pytest.raises(FailsightError, match=r"info\.json"):
        Run(root)


def test_a_lock_is_released_at_once(tmp_path):
    process = holder(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with writing_alone(tmp_path):
        assert time.monotonic() - began < 1
