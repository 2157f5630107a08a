"""Mutated bundles: refused in one sentence that names the file, or verdicts equal to the last bit; nothing in between.

Every second mutant is signed again, as somebody would who edits a bundle on purpose: then only the field checks stand
between a wrong value and a robot, and a bundle that loads must still judge finitely.
"""

import json
import struct

import numpy as np
import pytest
from conftest import point_bundle, recurrent_arrays
from fuzz_budget import at_most, cases

from failsight.core.errors import FailsightError
from failsight.core.types import Task
from failsight.monitor import bundle as bundles
from failsight.monitor.bundle import load_monitor, save_bundle
from failsight.monitor.probability import ProbabilityMap, TaskHistory
from failsight.monitor.senses import usual_of
from failsight.monitor.thresholds import fit_thresholds
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.signals.bank import SIGNAL_NAMES
from failsight.testing.checks import make_steps

TASK = Task(id="home", suite="point", instruction="go home", horizon=30)
JSON = ("config.json", "calibration.json", "specs.json", "fingerprint.json")
FILES = (*JSON, "model.safetensors")
ODD = (float("nan"), float("inf"), -1, 0, 1, 2.5, 1e308, -1e308, "0.5", "", None, True, [], {}, [[[]]], "NaN", 10**30)


def make(folder, seed=0):
    rng = np.random.default_rng(seed)
    probability = ProbabilityMap(
        centre=0.1,
        spread=1.0,
        slope=0.8,
        late=0.2,
        intercept=0.0,
        histories={"home": TaskHistory(prior=-1.0, usual=9.0)},
    )
    save_bundle(
        folder,
        point_bundle(
            RecurrentPredictor(recurrent_arrays(hidden=8, seed=seed)),
            fit_thresholds(list(rng.random(40)), ["home"] * 40, 0.1),
            provenance={"seed": seed},
            probability=probability,
            usual=usual_of([rng.random((30, len(SIGNAL_NAMES)))]),
        ),
    )
    (folder / "adapted.json").write_text(
        json.dumps({"bundle": load_monitor(folder).fingerprint, "tasks": {"new": ADAPTED}})
    )
    return folder


ADAPTED = {"watched": [0.1, None], "too_short": 0, "levels": [], "calibration": None}


def verdicts(folder):
    monitor = load_monitor(folder)
    monitor.reset(TASK)
    return [monitor.step(step) for step in make_steps(20, 4, 4, hidden=8)]


def told(found):
    return [(repr(v.risk), v.threshold, v.margin, v.trigger, v.why, v.blind) for v in found]


def sign(folder):
    """Make the digests right again."""
    path = folder / "fingerprint.json"
    marks = json.loads(path.read_text())
    marks["files"] = {name: bundles._digest((folder / name).read_bytes()) for name in bundles._COVERED}
    marks["bundle"] = bundles._digest_of(marks)
    path.write_text(json.dumps(marks))


def places(data, path=()):
    """Every place in a JSON tree."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def edit_json(folder, rng):
    path = folder / [*JSON, "adapted.json"][rng.integers(5)]
    data = json.loads(path.read_text())
    where = list(places(data))[rng.integers(len(list(places(data))))]
    at = data
    for key in where[:-1]:
        at = at[key]
    kind = rng.integers(3)
    if kind == 0:
        del at[where[-1]]
    elif kind == 1 and isinstance(at, dict):
        at["surprise"] = 1
    else:
        at[where[-1]] = ODD[rng.integers(len(ODD))]
    path.write_text(json.dumps(data))


def flip_bits(folder, rng):
    path = folder / FILES[rng.integers(5)]
    data = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(bytes(data))


def truncate(folder, rng):
    path = folder / FILES[rng.integers(5)]
    data = path.read_bytes()
    path.write_bytes(data[: rng.integers(len(data))])


def swap(folder, rng):
    other = make(folder.parent / "other", seed=7)
    name = FILES[rng.integers(5)]
    (folder / name).write_bytes((other / name).read_bytes())


def remove(folder, rng):
    (folder / FILES[rng.integers(5)]).unlink()


def nest(folder, rng):
    (folder / JSON[rng.integers(4)]).write_text("[" * 20_000)


def huge_header(folder, rng):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", int(rng.integers(2**33, 2**62))) + path.read_bytes()[8:])


MUTATIONS = (edit_json, edit_json, edit_json, flip_bits, flip_bits, truncate, swap, remove, nest, huge_header)


@pytest.mark.parametrize("case", cases(60))
def test_a_mutated_bundle_is_refused_or_judges_the_same(case, tmp_path):
    rng = np.random.default_rng([9, case])
    folder = make(tmp_path / "bundle")
    expected = told(verdicts(folder))
    MUTATIONS[case % len(MUTATIONS)](folder, rng)
    signed = case % 4 >= 2
    if signed:
        try:
            sign(folder)
        except (ValueError, OSError, KeyError, TypeError, RecursionError):
            signed = False
    with at_most(5):
        refusal, found = judged(folder)
    if refusal:
        assert "\n" not in refusal
        assert any(name in refusal for name in (*FILES, "adapted.json", "is not a bundle"))
        return
    assert signed or told(found) == expected
    assert all((np.isfinite(v.risk.p_fail) and np.isfinite(v.threshold)) or v.blind for v in found)


def judged(folder):
    try:
        return "", verdicts(folder)
    except FailsightError as refusal:
        return str(refusal), []
