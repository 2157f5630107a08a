"""What is unusual about an episode is named, told apart, and mended: values by hand on pictures and robots made here."""

import json
from dataclasses import replace

import numpy as np
import pytest

from failsight.causes.diagnosis import Diagnosis, Finding
from failsight.causes.familiar import Familiar, Wording, start_of
from failsight.causes.grip import Grip
from failsight.causes.matching import match_wording, nearest
from failsight.causes.mending import put_back, recolour
from failsight.causes.motion import response_of
from failsight.causes.views import displacement, view_of
from failsight.core.errors import EpisodeDataError, FailsightError, SpecMismatchError
from failsight.core.lens import PREFIX, Lens
from failsight.core.types import Decision, DecisionKind, EpisodeKey, Task
from failsight.interventions.rungs import Watch
from failsight.interventions.treat import Treat
from failsight.runtime.loop import Loop
from failsight.sims.tabletop.tasks import TASKS
from failsight.testing import fakes
from failsight.workflows.familiar import Ordinary, learn_familiar, read_wordings

KNOWN = [task.instruction(0) for task in TASKS.values()]


def scene(seed=0):
    """(64, 64, 3) a table with a bin and two things on it; the second one lies anywhere."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:] = (70, 90, 110)
    picture[10:58, 6:60] = (180, 160, 140)
    picture[20:36, 12:26] = (40, 60, 90)
    picture[42:50, 40:50] = (60, 160, 60)
    row, column = rng.integers(20, 34), rng.integers(34, 50)
    picture[row : row + 6, column : column + 6] = (210, 30, 30)
    return picture


def usual():
    return view_of("agent", [scene(seed) for seed in range(30)])


def test_a_displacement_is_read_in_pixels_and_a_new_colour_is_none():
    view, shifted = usual(), np.roll(scene(99), (3, -2), (0, 1))
    assert displacement(shifted, view.mean) == pytest.approx((3, -2), abs=0.3)
    dark = (scene(99) * 0.5).astype(np.uint8)
    assert view.distance(dark).moved < 0.3
    assert view.distance(dark).colours == pytest.approx(0.5 * view.mean[view.settled].mean(0).max(), rel=0.05)
    assert view.distance(shifted).colours < 4 < view.distance(dark).colours


def test_noise_is_grain_and_neither_a_move_nor_colours():
    noisy = np.clip(scene(99) + np.random.default_rng(1).normal(0, 30, (64, 64, 3)), 0, 255).astype(np.uint8)
    distance = usual().distance(noisy)
    assert distance.grain > 1 > distance.moved


@pytest.mark.parametrize("kind", ["light", "cloth"])
def test_usual_colours_come_back_and_things_keep_theirs(kind):
    """A light of half the red, or another table cloth: what comes out is the picture as it would have been."""
    before = scene(99)
    seen = before.copy()
    if kind == "light":
        seen = np.rint(before * (0.5, 1.0, 0.9)).astype(np.uint8)
    else:
        seen[(before == (180, 160, 140)).all(-1)] = (30, 120, 200)
    mended = recolour(seen, usual())(seen).astype(int)
    assert np.abs(seen.astype(int) - before).mean() > 15
    assert np.abs(mended - before).mean() < 4


def test_a_moved_picture_is_put_back():
    before = scene(99)
    seen = np.roll(before, (4, 3), (0, 1))
    mended = put_back(seen, usual())(seen).astype(int)
    inner = np.s_[8:-8, 8:-8]
    assert np.abs(mended - before)[inner].mean() < 0.3 * np.abs(seen.astype(int) - before)[inner].mean()


def test_a_lens_that_changes_nothing_changes_nothing():
    picture = scene(1)
    assert Lens()(picture) is picture


def test_a_robot_that_does_not_do_what_it_is_told_surprises():
    """x grows by 0.1 of the command; half a command of noise leaves far more than ordinary episodes do."""
    rng = np.random.default_rng(0)

    def episode(noise):
        actions = rng.uniform(-1, 1, (12, 2))
        moved = 0.1 * actions + noise * rng.normal(size=(12, 2)) + 1e-4 * rng.normal(size=(12, 2))
        return np.concatenate([np.zeros((1, 2)), np.cumsum(moved, 0)]), actions

    response = response_of([episode(0.0) for _ in range(30)])
    assert np.median(response.surprise(*episode(0.0))) < 3
    assert np.median(response.surprise(*episode(0.05))) > 50


def test_a_grip_is_lost_inwards_and_opens_outwards():
    """Fingers rest at .5 for four ticks; .3 is .2 further in, .9 is .4 further out; told to open, nothing is held."""
    grip = Grip(fakes.ACTIONS, fakes.OBSERVATIONS)
    closed = np.array([0, 0, 0, 1.0])

    def felt(opening, command=closed):
        state = np.zeros(len(fakes.OBSERVATIONS.state), np.float32)
        state[fakes.OBSERVATIONS.index("gripper_open01")] = opening
        return grip.feel(state, command)

    assert [felt(0.5) for _ in range(4)] == [(0.0, 0.0)] * 4
    assert felt(0.3) == pytest.approx((0.2, 0.0))
    assert felt(0.9) == pytest.approx((0.0, 0.4))
    assert felt(0.3, -closed) == (0.0, 0.0)


def familiar(**more):
    values = {
        "wordings": tuple(Wording(text=text, task=text, episodes=8) for text in KNOWN),
        "fixed": True,
        "views": (usual(),),
        "start": start_of([np.zeros((5, 4)), np.ones((5, 4))]),
        "response": None,
        "limits": {"moved agent": 1.0, "colours agent": 8.0, "grain agent": 0.5, "start": 9.0},
        "alpha": 0.02,
        "episodes": 50,
        "table": {},
    }
    return Familiar(**{**values, **more})


def test_a_camera_has_one_cause_and_a_moved_one_comes_first():
    diagnosis = Diagnosis(familiar(), fakes.ACTIONS, fakes.OBSERVATIONS)
    moved = np.roll((scene(99) * 0.5).astype(np.uint8), (4, 3), (0, 1))
    found = diagnosis.begin(KNOWN[0], {PREFIX + "agent": moved}, np.zeros(4))
    assert [finding.cause for finding in found] == ["moved agent"]
    again = Diagnosis(familiar(), fakes.ACTIONS, fakes.OBSERVATIONS)
    assert again.begin("sing", {PREFIX + "agent": scene(99)}, np.zeros(4)) == [Finding("wording", 1.0)]
    assert again.begin(KNOWN[0].upper() + "!", {PREFIX + "agent": scene(98)}, np.zeros(4)) == []


def test_what_is_familiar_survives_json_and_another_robot_is_refused():
    known = familiar(response=response_of([(np.random.rand(13, 4), np.random.rand(12, 4)) for _ in range(9)]))
    data = json.loads(json.dumps(known.as_dict()))
    again = Familiar.from_dict(data, 4, 4)
    assert again.wordings == known.wordings
    assert np.abs(again.views[0].mean - known.views[0].mean).max() <= 0.051, "stored in tenths of a grey level"
    with pytest.raises(EpisodeDataError, match="start"):
        Familiar.from_dict(data, 5, 4)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("빨간 블록을 왼쪽 상자에 넣어 줘", "put the red cube in the left bin"),
        ("노란 원기둥을 벽 너머 왼쪽 통으로 옮겨", "lift the yellow cylinder over the wall into the left bin"),
        ("빨간 큐브를 파란 큐브 위에 쌓아", "stack the red cube on the blue cube"),
        ("on top of the blue brick goes the ruby one", "stack the red cube on the blue cube"),
        ("chuck the navy cube into the tray on the right", "put the blue cube in the right bin"),
        ("put the cube in the left bin", None),
        ("put the red cube away", None),
        ("sing a song", None),
    ],
)
def test_the_nearest_wording_is_found_slot_by_slot_and_nothing_is_guessed(said, meant):
    assert nearest(said, KNOWN) == meant


def test_the_users_table_comes_first_and_is_disjoint_from_the_reworded_tasks():
    table = read_wordings_of_the_example()
    reworded = {task.instruction(level).casefold() for task in TASKS.values() for level in range(1, 6)}
    assert not reworded & {left.casefold() for left in table}
    assert set(table.values()) <= set(KNOWN)
    known = familiar(table={"Tidy up!": KNOWN[3]})
    assert match_wording("tidy up", known) == KNOWN[3]


def read_wordings_of_the_example():
    from pathlib import Path

    return read_wordings(Path(__file__).parents[2] / "examples/tabletop_wordings.csv")


def test_a_table_with_a_row_too_many_names_it(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("one,two\none!,three\n")
    with pytest.raises(FailsightError, match="row 2: 'one!' stands there twice"):
        read_wordings(path)


class Says(Watch):
    """Decides by step."""

    def __init__(self, said):
        self._said = said

    def propose(self, verdict, context):
        return self._said.get(context.step, Decision(kind=DecisionKind.CONTINUE, reason=""))


class Shown(fakes.PointPolicy):
    """Notes the mean of the pictures it is shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def infer(self, observation, step):
        pictures = [value for name, value in observation.items() if name.startswith(PREFIX)]
        self.seen.append((step, float(np.mean(pictures[0]))))
        return super().infer(observation, step)


def test_a_policy_sees_through_a_lens_from_the_next_step_on_also_in_a_fork():
    camera = fakes.OBSERVATIONS.cameras[0][0]
    dark = Decision(
        kind=DecisionKind.MEND_VIEW, reason="test", cause="colours", lenses={camera: lambda picture: picture * 0}
    )
    policy = Shown()
    loop = Loop(fakes.PointSim(), policy, intervention=Says({2: dark}))
    loop.start(EpisodeKey(seed=3, task="home", episode=1))
    pending = loop.run(until=lambda step, verdict: step.index == 4)
    assert [mean for step, mean in policy.seen if step <= 2] != [0.0]
    assert [mean for step, mean in policy.seen if step > 2][:1] == [0.0]
    assert loop.trace.causes == [(2, "colours")]
    snapshot = loop.save(pending)
    policy.seen.clear()
    loop.resume(snapshot, Watch())
    assert {mean for _, mean in policy.seen} == {0.0}


def test_a_cause_is_treated_before_anything_moves_and_an_unknown_one_is_not():
    treat = Treat()
    treat.learn(familiar(views=(), limits={}))
    loop = Loop(fakes.PointSim(), fakes.PointPolicy(), intervention=Quietly(treat))
    loop.start(EpisodeKey(seed=3, task="home", episode=1))
    loop.task = Task(id="home", suite="", instruction="could you stack scarlet on azure", horizon=9)
    loop.run(until=lambda step, verdict: step.index == 2)
    assert loop.at.instruction == "stack the red cube on the blue cube"
    assert loop.trace.causes == [(0, "wording")]


class Quietly(Watch):
    """A treatment that is already equipped."""

    def __init__(self, inner):
        self._inner = inner

    def propose(self, verdict, context):
        return self._inner.propose(verdict, context)


def test_without_what_is_familiar_nothing_is_diagnosed_and_that_is_said():
    with pytest.raises(SpecMismatchError, match="failsight fit RUN --ordinary"):
        Loop(fakes.PointSim(), fakes.PointPolicy(), intervention=Treat())


def test_too_few_ordinary_episodes_are_said(tmp_path):
    from conftest import make_log_run

    run = make_log_run(tmp_path / "run")
    notes = []
    assert learn_familiar(run, Ordinary(), notes.append) is None


def test_limits_do_not_name_what_the_measuring_itself_does():
    assert replace(familiar(), limits={}).causes == ("wording",)
