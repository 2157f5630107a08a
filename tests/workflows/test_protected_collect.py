"""`collect --monitor`: verdicts are stored, an arm acts, and unknown tasks are calibrated from whole successes only."""

import json

import numpy as np
import pytest
from conftest import point_bundle, recurrent_arrays

from failsight.core.errors import BundleError, FailsightError
from failsight.core.sim_entry import SimEntry
from failsight.core.types import Outcome
from failsight.episodes.run import Run
from failsight.episodes.verdicts import read_verdicts
from failsight.interventions.gate import GateEntry
from failsight.interventions.ladder_file import save_ladder
from failsight.monitor.bundle import load_monitor, save_bundle
from failsight.monitor.thresholds import fit_thresholds
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.runtime import collect as runtime_collect
from failsight.testing import fakes
from failsight.workflows.collect import CollectOptions, collect_run

POINT = SimEntry(make="failsight.testing.fakes:PointSim")


@pytest.fixture
def point(monkeypatch):
    """Episodes of the point are run in this process."""

    def inline(build, work, tickets, workers):
        bench = build()
        for ticket in tickets:
            yield ticket, work(bench, ticket)

    monkeypatch.setattr(runtime_collect, "run_pool", inline)


def bundle(folder):
    predictor = RecurrentPredictor(recurrent_arrays(hidden=8))
    thresholds = fit_thresholds(list(np.linspace(0, 1, 30)), ["elsewhere"] * 30, 0.1)
    save_bundle(folder, point_bundle(predictor, thresholds, provenance={}))
    return folder


def run(folder, count, monitor, arm="", first=0):
    keys = [fakes.EpisodeKey(seed=first, task="home", episode=i) for i in range(count)]
    options = CollectOptions(
        policy="failsight.testing.fakes:PointPolicy", sim=f"{__name__}:POINT", workers=1, monitor=monitor, arm=arm
    )
    return collect_run(folder, keys, options, lambda meta, old: None)


def test_a_watched_run_calibrates_an_unknown_task_and_the_next_one_uses_it(point, tmp_path):
    monitor = bundle(tmp_path / "bundle")
    found = run(tmp_path / "first", 10, monitor)
    assert {e.outcome for e in found.episodes} == {Outcome.SUCCESS}
    (judge, frame), *_ = read_verdicts(tmp_path / "first").items()
    assert judge.bundle == load_monitor(monitor).fingerprint
    assert frame["blind"].str.contains("uncalibrated: 10 more successes of home").all()
    learned = load_monitor(monitor).thresholds
    assert learned.choose("home").basis == "task"
    assert json.loads((monitor / "adapted.json").read_text())["bundle"] == judge.bundle
    run(tmp_path / "second", 2, monitor, first=5)
    (_, frame), *_ = read_verdicts(tmp_path / "second").items()
    assert (frame["blind"] == "").all()
    assert (frame["threshold"] == learned.choose("home").threshold).all()
    assert load_monitor(monitor).thresholds.learned == learned.learned, "learned once"
    assert Run(tmp_path / "second").meta.bundle == judge.bundle


def test_episodes_an_arm_stopped_are_censored(point, tmp_path):
    monitor = bundle(tmp_path / "bundle")
    found = run(tmp_path / "run", 3, monitor, "safe_stop")
    assert {e.outcome for e in found.episodes} == {Outcome.STOPPED}, "blind for ten ticks is a trigger"
    thresholds = load_monitor(monitor).thresholds
    assert thresholds.watched["home"] == [np.inf] * 3
    assert thresholds.choose("home").basis == "uncalibrated"


def test_the_ladder_beside_the_bundle_acts_and_none_does_not(point, tmp_path):
    monitor = bundle(tmp_path / "bundle")
    shut, opened = (GateEntry(rung="slow", triggers=40, rescues=n, harms=0) for n in (0, 20))
    with pytest.raises(FailsightError, match="needs forks that open its rungs"):
        run(tmp_path / "none", 1, monitor, "ladder_auto")
    for entry, decisions in ((shut, {"continue"}), (opened, {"continue", "slow"})):
        save_ladder(monitor, [entry])
        run(tmp_path / f"{entry.rescues}", 1, monitor, "ladder_auto")
        (_, frame), *_ = read_verdicts(tmp_path / f"{entry.rescues}").items()
        assert set(frame["decision"]) == decisions


def test_arms_and_bundles_that_do_not_fit_are_refused_before_anything_runs(point, tmp_path):
    monitor = bundle(tmp_path / "bundle")
    for options, words in (((None, "slow"), "say whose"), ((monitor, "slwo"), "Did you mean slow")):
        with pytest.raises(FailsightError, match=words):
            run(tmp_path / "run", 2, *options)
    with pytest.raises(BundleError, match="is not a bundle"):
        run(tmp_path / "run", 2, tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()
