"""A disk that fills at any moment: one sentence, nothing half-written, and the same run once there is space again."""

import json
import subprocess
import sys

import pytest

from failsight.core.errors import StorageError
from failsight.storage.video import VideoWriter

SCRIPT = """
import json, resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_store import make_meta, seal
from failsight.core.errors import FailsightError, StorageError
from failsight.storage.lock import writing_alone
from failsight.episodes.run import Run
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.table import label_run, read_labels
from failsight.episodes.run import is_sealed
from failsight.runtime.collect import prepare, record_episode

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file too large is then an error like a full disk

def go(root):
    bench, meta = make_meta(episodes=2, video=1.0)
    with writing_alone(root):
        for ticket in prepare(root, meta, resume=True):
            record_episode(root, 1.0, bench, ticket)
        if not is_sealed(root):
            seal(root)
    label_run(Run(root), OutcomeLabeler())

def content(root):
    run = Run(root)
    return [(e.states.tobytes(), len(read_labels(run))) for e in run.read()]

go(Path(sys.argv[2]) / "calm")
calm = content(Path(sys.argv[2]) / "calm")
for limit in json.loads(sys.argv[3]):
    root, said = Path(sys.argv[2]) / str(limit), ""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        go(root)
    except StorageError as error:
        said = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    left = [str(p) for p in root.rglob("*.partial")] if root.exists() else []
    go(root)
    print(json.dumps([limit, said, left, content(root) == calm]))
"""


def test_a_disk_that_fills_at_any_write(tmp_path):
    limits = [0, 40, 300, 900, 1500, 2500, 4000, 6000, 9000, 14000, 20000, 30000]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, __file__.rpartition("/")[0], str(tmp_path), json.dumps(limits)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused = 0
    for line in done.stdout.splitlines():
        limit, said, left, same = json.loads(line)
        refused += bool(said)
        assert said == "" or ("too large" in said and str(tmp_path) in said), (limit, said)
        assert left == [], (limit, left)
        assert same, f"with {limit} bytes a file, the run was another one after there was space"
    assert refused >= 8


FILM = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from failsight.core.errors import StorageError
from failsight.storage.video import VideoWriter

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def film(path):
    video, rng = VideoWriter(path, 64, 64, 20), np.random.default_rng(0)
    for _ in range(25):
        video.add(rng.integers(0, 255, (64, 64, 3), np.uint8))
    video.close()

whole = Path(sys.argv[1]) / "whole.mp4"
film(whole)
size = whole.stat().st_size
for missing in (1, 20, 300, 3000, size - 3000, size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, resource.RLIM_INFINITY))
    try:
        film(Path(sys.argv[1]) / "short.mp4")
        print("silently short of", missing)
    except StorageError as error:
        print(error)
"""


def test_a_video_that_does_not_fit_is_not_silently_short(tmp_path):
    """Also when only its last bytes are missing, which FFmpeg's own writing to a path does not tell."""
    done = subprocess.run([sys.executable, "-c", FILM, str(tmp_path)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert all("short.mp4: File too large" in line for line in lines), lines


def test_a_folder_that_cannot_be_written_is_one_sentence():
    with pytest.raises(StorageError, match="Cannot write /proc/nothing"):
        VideoWriter(__import__("pathlib").Path("/proc/nothing.mp4"), 16, 16, 5)
