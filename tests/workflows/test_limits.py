"""`failsight limits`: what successful episodes stayed within, and the answer for robots that are given targets."""

import numpy as np
import pytest

import failsight
from failsight.cli.main import main
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.interventions.limits import GuardLimits

ARM = ActionSpec(
    dimensions=(
        Dimension(name="j0", kind="absolute", unit="rad", low=-3.0, high=3.0),
        Dimension(name="gripper", kind="binary", unit="sign"),
    ),
    frame="joint",
    rate_hz=20.0,
    gripper_closed_sign=1,
)
SEEN = ObservationSpec(state=("j0_rad", "gripper_open01"), cameras=())


@pytest.fixture
def run_folder(tmp_path):
    """One good episode in steps of 0.02 rad, one failed one in steps of 0.5."""
    steps = {}

    def policy(at):
        return np.array([at[0] + steps["now"], 1.0])

    with failsight.watch(policy, record=tmp_path / "run", actions=ARM, observations=SEEN, clock=None) as watched:
        for steps["now"], success in ((0.02, True), (0.5, False)):
            at = np.array([0.1, 1.0], np.float32)
            watched.reset("reach")
            for _ in range(5):
                at = watched(at)
            watched.end(success)
    return tmp_path / "run"


def test_limits_are_those_of_successful_episodes(run_folder, tmp_path, capsys):
    main(["limits", str(run_folder), "--quantile", "1", "--out", str(tmp_path / "limits.json")])
    shown = capsys.readouterr().out
    assert "max_relative_target = {'j0': 0.02}" in " ".join(shown.split())
    assert "0.4 rad/s" in shown
    limits = GuardLimits.read(tmp_path / "limits.json")
    assert limits.caps.velocity.tolist() == [pytest.approx(0.02, rel=1e-4), np.inf]
    assert limits.high[0] == pytest.approx(0.2)
    assert limits.workspace["j0_rad"] == (pytest.approx(0.1), pytest.approx(0.18))


def test_a_run_that_shows_nothing_usual_is_refused(tmp_path, capsys):
    with failsight.watch(lambda at: at, record=tmp_path / "run", actions=ARM, observations=SEEN, clock=None) as watched:
        watched.reset("reach")
        watched(np.ones(2, np.float32))
        watched.end(True)
    with pytest.raises(SystemExit) as error:
        main(["limits", str(tmp_path / "run")])
    assert error.value.code == 2
    assert "no successful episode of 3 steps" in " ".join(capsys.readouterr().out.split())
