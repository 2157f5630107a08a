import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import json

import numpy as np
import pytest

from failsight.core.specs import Access, SignalColumn
from failsight.core.types import EpisodeKey
from failsight.episodes.logged import Log, LoggedEpisode, LogOrigin, store_log
from failsight.episodes.run import Run
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.table import label_run
from failsight.monitor.bundle import Bundle
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.features import Whitening
from failsight.predictors.hazard import BINS, SURVIVES, UNKNOWN
from failsight.signals.bank import SIGNAL_NAMES
from failsight.testing.fakes import ACTIONS, OBSERVATIONS


@pytest.fixture(autouse=True, scope="session")
def caches(tmp_path_factory):
    """Converted data lands in a folder of the test run, never in somebody's home."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture
def key():
    return EpisodeKey(seed=3, task="home", episode=1)


def point_bundle(predictor, thresholds, **more):
    """What a bundle of the point's policy holds."""
    parts = {"rule": TriggerRule(), "policy": "point", "provenance": {"run": "test"}, **more}
    return Bundle(
        predictor=predictor, thresholds=thresholds, action_spec=ACTIONS, observation_spec=OBSERVATIONS, **parts
    )


def recurrent_arrays(hidden=6, actions=4, members=2, units=8, seed=0):
    """Random weights of a small recurrent predictor."""
    rng = np.random.default_rng(seed)
    inputs, outputs = len(SIGNAL_NAMES) + hidden, BINS + 4 + actions

    def draw(*shape):
        return (0.4 * rng.standard_normal(shape)).astype(np.float32)

    whitening = Whitening.fit(
        rng.random((50, len(SIGNAL_NAMES))), rng.standard_normal((50, hidden)) if hidden else None
    )
    return {
        "mean": whitening.mean,
        "scale": whitening.scale,
        "signals": np.array([len(SIGNAL_NAMES)]),
        "enter_w": draw(members, units, inputs),
        "enter_b": draw(members, units),
        "gru_x": draw(members, 3 * units, units),
        "gru_h": draw(members, 3 * units, units),
        "bias_x": draw(members, 3 * units),
        "bias_h": draw(members, 3 * units),
        "head_w": draw(members, outputs, units),
        "head_b": draw(members, outputs),
    }


LOG_NAMES = ("action_norm", "chunk_mse", "eef_z", "action_entropy")
LOG_COLUMNS = tuple(
    SignalColumn(name=name, unit="1", access=access)
    for name, access in zip(
        LOG_NAMES, (Access.ACTIONS, Access.ACTIONS, Access.PROPRIOCEPTION, Access.SAMPLES), strict=True
    )
)


def log_arrays(count=90, hidden=12, tasks=3, informative=True, seed=0):
    """(task, seed, failed, signals, hidden) of synthetic logged episodes: failures run to step 40, successes stop early.

    Tasks differ in offset and failure rate; in failures the chunk error and one hidden entry are higher throughout.
    """
    rng = np.random.default_rng(seed)
    for i in range(count):
        task = i % tasks
        failed = bool(rng.random() < 0.2 + 0.15 * task)
        steps = 40 if failed else int(rng.integers(15, 30))
        signals = rng.random((steps, len(LOG_NAMES))).astype(np.float32) + 0.3 * task
        states = rng.standard_normal((steps, hidden)).astype(np.float16) + np.float16(0.5 * task)
        if failed and informative:
            signals[:, 1] += 0.6
            states[:, :1] += np.float16(2.0)
        yield f"task_{task}", i // tasks, failed, signals, states if hidden else None


def log_sequences(**options):
    """The same as labelled sequences."""
    return [
        LabelledSequence(
            ticket=i,
            task=task,
            condition="none",
            signals=signals,
            hidden=hidden,
            failed=failed,
            bins=np.full(len(signals), UNKNOWN if failed else SURVIVES),
            kind=-1,
            dimension=np.zeros((len(signals), 0), bool),
            onset=None,
        )
        for i, (task, _, failed, signals, hidden) in enumerate(log_arrays(**options))
    ]


def make_log_run(root, **options):
    """The same as a stored, labelled run."""
    episodes = tuple(
        LoggedEpisode(
            task=task, instruction=task, seed=seed, number=seed, success=not failed, signals=signals, hidden=hidden
        )
        for task, seed, failed, signals, hidden in log_arrays(**options)
    )
    store_log(Log(columns=LOG_COLUMNS, episodes=episodes), root, LogOrigin(policy="p", suite="s", horizon=40))
    run = Run(root)
    label_run(run, OutcomeLabeler())
    return run


def write_json_log(folder, **options):
    """The same as ActProbe JSON lines, one file per task."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = {}
    for task, seed, failed, signals, _ in log_arrays(**options):
        steps = [{"t": t, **dict(zip(LOG_NAMES, map(float, row), strict=True))} for t, row in enumerate(signals)]
        record = {"episode_id": seed, "success": not failed, "length": len(steps), "steps": steps}
        lines.setdefault(task, []).append(json.dumps(record))
    for task, rows in lines.items():
        (folder / f"{task}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


class Quiet:
    """A reporter that says nothing."""

    def stage(self, title):
        pass

    def count(self, total):
        return lambda note: None

    def note(self, text):
        pass
