"""Every example runs as its first lines say."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from failsight.core.types import EpisodeKey
from failsight.testing import checks

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def from_the_checkout():
    sys.path.insert(0, str(ROOT))
    yield
    sys.path.remove(str(ROOT))


def run(*words, cwd=ROOT):
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_simulator_and_the_policy_keep_their_word():
    from examples.own_policy import Reach
    from examples.own_simulator import HORIZON, ReachEnv

    first, other = (EpisodeKey(seed=1, task=task, episode=2) for task in ("left-cup", "right-cup"))
    actions = np.random.default_rng(0).uniform(-1, 1, (HORIZON, 2)).astype(np.float32)
    checks.check_sim(ReachEnv, first, other, actions)
    checks.check_policy(Reach(), ReachEnv(), first)
    checks.check_policy_sessions(Reach(), [(task, first) for task in ReachEnv().tasks()])


@pytest.mark.slow
def test_own_simulator_policy_and_loop(tmp_path):
    names = ("--sim", "examples.own_simulator:ENTRY", "--policy", "examples.own_policy:Reach")
    main = ("-c", "from failsight.cli.main import main; main()")
    said = run(*main, "collect", *names, "--out", str(tmp_path / "reach"), "--trials", "60", "--mix", "default")
    assert "left-cup" in said
    run(*main, "fit", str(tmp_path / "reach"))
    lines = run("examples/monitor_in_your_loop.py", str(tmp_path / "reach/bundle")).splitlines()
    ends = [line for line in lines if line.startswith("episode")]
    assert len(ends) == 10
    assert sum("none" in line and "no alarm" in line for line in ends) >= 4
    assert any("draught" in line and "alarm at tick" in line for line in ends)


def test_a_foreign_policy_is_recorded_fitted_watched_and_evaluated(tmp_path, capsys):
    """The circle of `examples/watch_a_policy.py`, with one episode more whose ending nobody knows."""
    import failsight
    from examples import watch_a_policy as example
    from failsight.workflows.evaluate import evaluate_bundle
    from failsight.workflows.fit import LogFitOptions, fit_log

    def one_more(watched, episodes, first, drive=example.drive):
        done = drive(watched, episodes, first)
        watched.reset("left-cup")
        watched.step({"state": np.zeros(4, np.float32)})
        watched.end(None)
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "drive", one_more)
        example.record(str(tmp_path / "recorded"))
    run, notes = failsight.Run(tmp_path / "recorded"), []
    assert len(run.episodes) == 61
    fit_log(run, tmp_path / "bundle", LogFitOptions(detector="ledger"), notes.append)
    assert any("left out: 1 unknown of 61 episodes" in note for note in notes)
    assert dict(evaluate_bundle(run.root, tmp_path / "bundle"))["left out"].startswith("1 unknown of 61 episodes")
    example.watch(str(tmp_path / "bundle"), str(tmp_path / "watched"))
    stop, person = capsys.readouterr().out.splitlines()
    assert stop.startswith("safe_stop: ")
    assert person.startswith("takeover: ")
    assert "rescued 1.000" in person, "whom the person is called for arrives"
    figures = dict(evaluate_bundle(tmp_path / "watched", tmp_path / "bundle"))
    assert figures["episodes"] == "24"
    assert float(figures["failures that trigger"].split()[0]) > float(figures["false alarms"].split()[0])
