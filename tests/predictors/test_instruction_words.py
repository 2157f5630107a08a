"""Instructions as vectors."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import log_sequences

from failsight.core.types import Task
from failsight.evaluation.judging import trace
from failsight.evaluation.scoring import score_sequence
from failsight.monitor.calibration import Calibration
from failsight.monitor.monitor import LoggedSignals, RiskMonitor
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.network import ActProbe
from failsight.predictors.words import begin, embed, words
from failsight.testing.checks import make_steps


def test_words_of_instructions_and_names():
    assert words("Put the mug on the LEFT plate, twice.") == [
        "put",
        "the",
        "mug",
        "on",
        "the",
        "left",
        "plate",
        "twice",
    ]
    assert words("OpenDrawer_PandaOmron_Env") == ["open", "drawer", "panda", "omron", "env"]
    assert words("öffne die Tür 2") == ["öffne", "die", "tür", "2"]
    assert words("") == []


def test_shared_words_are_near_and_no_words_are_nothing():
    a, b, c = (embed(t, 64) for t in ("open the left drawer", "open the right drawer", "press the button"))
    assert np.linalg.norm(a) == pytest.approx(1)
    assert a @ b > a @ c
    assert not embed("", 64).any()
    assert (embed("open the left drawer", 64) == a).all()


def actprobe():
    """Weights that say nothing but the first number of the instruction's cell state: h and c start at relu(text)[0] each."""
    size, units = ActProbe.design.text, ActProbe.design.units
    arrays = {"cell.x": np.zeros((4 * units, 2)), "cell.h": np.zeros((4 * units, units))}
    arrays |= {"cell.bx": np.zeros(4 * units), "cell.bh": np.zeros(4 * units)}
    arrays |= {"text.w": np.eye(16, size), "text.b": np.zeros(16)}
    for part in ("text.h", "text.c"):
        arrays |= {f"{part}.w": np.ones((units, 16)), f"{part}.b": np.zeros(units)}
    for i, (rows, columns) in enumerate(((16, units + 2), (8, 16), (1, 8))):
        arrays |= {f"w{i}": np.eye(rows, columns), f"b{i}": np.zeros(rows)}
    inputs = {"in.width": np.array(2), "in.columns": np.array([0]), "in.log": np.zeros(1, bool)}
    return ActProbe({**arrays, **inputs, "in.mean": np.zeros((1, 1)), "in.scale": np.ones((1, 1))})


def first_score(predictor):
    return predictor.update(np.zeros(1, np.float32), None).evidence


def test_the_instruction_starts_the_cell():
    """All gates are half open and the new content is 0: c = s / 2 and h = tanh(c) / 2, s the sum of the first 16 numbers."""
    text = next(t for t in map(str, range(99)) if embed(t, 64)[:16].sum() == 1)
    predictor = actprobe()
    begin(predictor, "any", text)
    assert first_score(predictor) == pytest.approx(np.tanh(0.5) / 2, abs=1e-6)
    begin(predictor, text, "")
    assert first_score(predictor) == pytest.approx(np.tanh(0.5) / 2, abs=1e-6)
    predictor.reset("any")
    assert first_score(predictor) == 0


def test_a_monitor_and_a_replay_tell_the_predictor_its_instruction():
    text = next(t for t in map(str, range(99)) if embed(t, 64)[:16].sum() == 1)
    calibration = Calibration(alpha=0.1, threshold=9.0, successes=20, alpha_upper=0.2)
    monitor = RiskMonitor(actprobe(), LoggedSignals(("a",)), TriggerRule(), Thresholds(pooled=calibration))
    monitor.reset(Task(id="t", suite="s", instruction=text, horizon=9))
    step = replace(make_steps(1, 2, 2)[0], signals=np.zeros(1, np.float32))
    assert monitor.step(step).risk.evidence == pytest.approx(np.tanh(0.5) / 2, abs=1e-6)
    episode = replace(log_sequences(count=1)[0], signals=np.zeros((3, 1), np.float32), instruction=text)
    assert trace(actprobe(), episode)[0] == pytest.approx(np.tanh(0.5) / 2, abs=1e-6)
    assert score_sequence(episode, actprobe(), TriggerRule(), 9.0).ticket == 0
