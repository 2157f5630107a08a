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
