"""Damaged runs: every reader and command answers with what was recorded or with one sentence, and changes nothing.

A case damages one copy of a run (flipped bits, cut or lost or swapped files, edited JSON, files too many) and shows it to
all readers. Where `failsight verify` finds nothing, every reader must give exactly what the whole run gave; where a
reader gives anything else, it must be a refusal. One case in three is a run without checksums, as older versions made
them: there an edited number is believed, but a flipped bit in a table is not.
"""

import importlib
import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_log_run
from fuzz_budget import cases

sys.path.insert(0, str(Path(__file__).parents[1] / "episodes"))
from test_store import make_meta

from failsight.cli.main import main
from failsight.core.errors import FailsightError
from failsight.episodes.run import Run
from failsight.episodes.seal import seal
from failsight.episodes.verdicts import Judge, VerdictRow, read_verdicts, write_verdicts
from failsight.episodes.verify import verify_run
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.table import label_run, read_labels
from failsight.predictors.dataset import build_sequences
from failsight.runtime.collect import committed, prepare, record_episode
from failsight.storage.checksums import PLACE
from failsight.workflows.data_sets import open_data

LIMIT_S = 5
"""Of this process's own time, for all readers and commands of a case together."""
COMMANDS = ("episodes", "verify", "view", "audit", "report", "label")
EXTRA = (".DS_Store", "Thumbs.db", "._file-000.parquet", "file-007.parquet", "file-000.parquet~", "notes.txt", "x.json")
VALUES = (None, True, -1, 0, 3, 1e308, float("nan"), "", "x", "push:9", [], [1, 2], {}, {"a": 1}, "../..", 10**30)


def our_run(root, episodes, video):
    bench, meta = make_meta(episodes=episodes, video=video)
    step = bench.sim.step

    def breaks(action):
        if bench.sim.key.episode == 1 and bench.sim._step == 3:
            raise ValueError("broken")
        return step(action)

    bench.sim.step = breaks
    for ticket in prepare(root, meta, resume=False):
        record_episode(root, video, bench, ticket)
    seal(root)
    label_run(Run(root), OutcomeLabeler())
    rows = [VerdictRow(step=t, time_s=t / 20, p_fail=t / 9, trigger=t > 5) for t in range(9)]
    write_verdicts(root, Judge(bundle="b", policy="point"), {0: rows, 2: rows})
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    found = [our_run(place / "filmed", 4, 1.0), our_run(place / "plain", 3, 0.0)]
    log = make_log_run(place / "log", count=12, hidden=4)
    label_run(log, OutcomeLabeler())
    for command in COMMANDS:  # imports what they need before the clock of a case runs
        run_command(command, shutil.copytree(found[0], place / "warm" / command))
    importlib.import_module("failsight.workflows.view")
    return [*found, log.root]


def read_all(root, cache):
    """What every reader gives, each on its own: its values, or None where it refuses."""
    run = {}

    def opened():
        return run.setdefault("run", Run(root))

    readers = {
        "episodes": lambda: [repr(meta) for meta in opened().episodes],
        "steps": lambda: [
            [
                getattr(e, name) is None or getattr(e, name).tobytes()
                for name in ("states", "actions", "chunks", "samples")
            ]
            + [e.hidden is None or e.hidden.tobytes(), e.signals is None or e.signals.tobytes(), repr(e.events)]
            for e in opened().read()
        ],
        "meta": lambda: repr(opened().meta),
        "labels": lambda: [(t, repr(label)) for t, label in read_labels(opened()).items()],
        "verdicts": lambda: [(judge, frame.to_csv()) for judge, frame in read_verdicts(root).items()],
        "sequences": lambda: [
            (s.ticket, s.signals.tobytes(), s.failed, repr(s.onset))
            for s in build_sequences(opened(), read_labels(opened()))
        ],
        "committed": lambda: [repr(meta) for meta in committed(root)],
    }
    if cache is not None:
        readers["training data"] = lambda: demonstrations(root, cache)
    return {name: attempt(reader) for name, reader in readers.items()}


def attempt(reader):
    try:
        return reader()
    except FailsightError as refusal:
        if len(str(refusal).splitlines()) != 1:
            raise
        return None


def demonstrations(root, cache):
    data = open_data(root, cache)
    images = [np.asarray(data.images[camera]).tobytes() for camera in sorted(data.images)]
    return [np.asarray(data.actions).tobytes(), np.asarray(data.states).tobytes(), *images]


def files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def pick(rng, items):
    return items[int(rng.integers(len(items)))]


def a_place(rng, value, path=()):
    """A random path into nested JSON."""
    while isinstance(value, dict | list) and value and (not path or rng.random() < 0.8):
        step = pick(rng, list(value)) if isinstance(value, dict) else int(rng.integers(len(value)))
        path, value = (*path, step), value[step]
    return path


def edit_json(rng, root):
    target = pick(rng, sorted(p for p in root.rglob("*.json") if p.name != "checksums.json"))
    content = json.loads(target.read_text())
    *above, last = a_place(rng, content)
    place = content
    for step in above:
        place = place[step]
    if rng.random() < 0.3:
        del place[last]
    else:
        place[last] = pick(rng, VALUES)
    target.write_text(json.dumps(content))
    return f"edit {target.name} {above} {last}"


def damage(rng, root, others):
    """Damage one copy; returns what was done."""
    kind = pick(
        rng, ("flip", "flip", "flip", "cut", "zeros", "lose", "swap", "foreign", "edit", "edit", "extra", "folder")
    )
    inside = sorted(p for p in root.rglob("*") if p.is_file())
    suffix = pick(rng, sorted({p.suffix for p in inside}))
    target = pick(rng, [p for p in inside if p.suffix == suffix])
    data = bytearray(target.read_bytes())
    if kind == "flip":
        at = int(rng.integers(len(data) * 8))
        data[at // 8] ^= 1 << (at % 8)
        target.write_bytes(data)
    elif kind == "cut":
        target.write_bytes(data[: int(rng.integers(len(data)))])
    elif kind == "zeros":
        at = int(rng.integers(len(data)))
        target.write_bytes(data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :])
    elif kind == "lose":
        target.unlink()
    elif kind == "swap":
        other = pick(rng, [p for p in inside if p.suffix == suffix])
        other_data = other.read_bytes()
        other.write_bytes(data)
        target.write_bytes(other_data)
    elif kind == "foreign":
        candidates = sorted(p for run in others for p in run.rglob(f"*{suffix}") if p.is_file())
        target.write_bytes(pick(rng, candidates).read_bytes() if candidates else b"")
    elif kind == "edit":
        return edit_json(rng, root)
    elif kind == "extra":
        place = pick(rng, sorted({p.parent for p in inside})) / pick(rng, EXTRA)
        place.write_bytes(data if rng.random() < 0.5 else bytes(rng.integers(0, 256, 50, np.uint8)))
        target = place
    else:
        target.unlink()
        target.mkdir()
    return f"{kind} {target.relative_to(root)}"


def alarm(*_):
    raise TimeoutError(f"longer than {LIMIT_S} s")


@pytest.mark.parametrize("case", cases(300))
def test_a_damaged_run_is_read_right_or_refused(case, runs, tmp_path, capsys):
    rng = np.random.default_rng([99, case])
    whole = pick(rng, runs)
    root = shutil.copytree(whole, tmp_path / "run")
    sealed = rng.random() < 2 / 3
    if not sealed:
        (root / PLACE).unlink()
    done = damage(rng, root, [r for r in runs if r != whole])
    caches = (tmp_path / "before", tmp_path / "after") if whole.name == "filmed" else (None, None)
    before = files(root)
    signal.signal(signal.SIGPROF, alarm)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        good, found = read_all(whole, caches[0]), read_all(root, caches[1])
        clean = attempt(lambda: not verify_run(root).damages)
        codes = {command: run_command(command, root) for command in COMMANDS[:-1]}
        assert files(root) == before, f"{done}: a reader changed the run"
        codes["label"] = run_command("label", root)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    after = {name: data for name, data in files(root).items() if not name.startswith("labels/")}
    assert after == {name: data for name, data in before.items() if not name.startswith("labels/")}, done
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err, (done, said)
    assert codes["verify"] == (0 if clean else 2), (done, codes)
    assert set(codes.values()) <= {0, 2}, (done, codes)
    whole_files = done.startswith(("edit", "foreign", "extra", "swap", "lose"))
    believed = not sealed and (whole_files or not done.endswith(".parquet"))
    derived = done.startswith(("lose", "extra", "folder")) and done.split()[1].startswith(("labels/", "verdicts/"))
    for name, values in found.items():
        if not believed and not derived:
            assert values in (None, good[name]), f"{done}: {name} are others, silently"


def run_command(command, root):
    words = [command, str(root), *(["--episode", "0"] if command == "view" else [])]
    try:
        main(words)
    except SystemExit as stop:
        return stop.code
    return 0
