import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from failsight.core.errors import FailsightError
from failsight.core.types import EpisodeKey
from failsight.episodes.meta import RunMeta
from failsight.episodes.run import Run
from failsight.runtime.bench import Bench
from failsight.runtime.collect import collect, tensor_shapes
from failsight.runtime.pool import run_pool
from failsight.testing.fakes import PointPolicy, PointSim


class SlowSim(PointSim):
    """Slow enough to be killed in the middle."""

    def step(self, action):
        time.sleep(0.004)
        return super().step(action)


def bench():
    return Bench(SlowSim(), PointPolicy())


def make_meta(episodes):
    b = bench()
    plan = tuple(EpisodeKey(seed=1, task="home", episode=i) for i in range(episodes))
    return RunMeta(
        action_spec=b.policy.action_spec,
        observation_spec=b.policy.observation_spec,
        policy="point",
        sim="point",
        plan=plan,
        shapes=tensor_shapes(b.policy, b.sim, plan[0]),
    )


def collect_all(root, episodes, workers=2, resume=False):
    return list(collect(root, make_meta(episodes), bench, workers, resume))


def content(root):
    run = Run(root)
    return [(e.meta.outcome, e.meta.key, e.actions.tobytes(), e.states.tobytes()) for e in run.read()]


@pytest.mark.slow
def test_kill_9_at_a_random_moment_then_resume_gives_the_undisturbed_run(tmp_path):
    episodes = 24
    collect_all(tmp_path / "calm", episodes)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from test_collect import collect_all; from pathlib import Path;"
        f"collect_all(Path(sys.argv[2]), {episodes}, resume=True)"
    )
    rng = np.random.default_rng()
    here = os.path.dirname(__file__)
    killed = 0
    for _ in range(3):
        guard = f"if __name__ == '__main__':\n    {code}"
        script = tmp_path / "go.py"
        script.write_text(guard)
        process = subprocess.Popen([sys.executable, str(script), here, str(tmp_path / "killed")])
        time.sleep(1.2 + 1.5 * rng.random())
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        time.sleep(0.5)
    collect_all(tmp_path / "killed", episodes, resume=True)
    assert killed >= 1
    assert content(tmp_path / "killed") == content(tmp_path / "calm")


def test_two_workers_give_what_one_gives(tmp_path):
    collect_all(tmp_path / "one", 6, workers=1)
    collect_all(tmp_path / "two", 6, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_finished_run_is_left_alone(tmp_path):
    collect_all(tmp_path / "run", 3, workers=1)
    assert collect_all(tmp_path / "run", 3, workers=1, resume=True) == []


def die_once(folder, _, ticket):
    marker = folder / f"{ticket}.died"
    if ticket == 2 and not marker.exists():
        marker.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return ticket * 10


def die_always(_, ticket):
    os.kill(os.getpid(), signal.SIGKILL)


def nothing():
    return None


def test_a_dead_worker_loses_no_ticket(tmp_path):
    results = dict(run_pool(nothing, partial(die_once, tmp_path), list(range(6)), workers=2))
    assert results == {i: i * 10 for i in range(6)}


def test_workers_that_always_die_are_reported():
    with pytest.raises(FailsightError, match="died 3 times"):
        list(run_pool(nothing, die_always, [1, 2], workers=1))
