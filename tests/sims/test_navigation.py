"""The navigation room: scenarios, collisions, time-outs, the expert, its recordings."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError, FailsightError, UnknownNameError
from failsight.core.types import EpisodeKey, Perturbation
from failsight.episodes.formats.mobile_vla import read_episode, scenario_of
from failsight.recipes.demonstrate.recordings import demonstrate
from failsight.sims import register_envs
from failsight.sims.navigation.env import NavigationEnv, planar
from failsight.sims.navigation.expert import NavigationExpert
from failsight.sims.navigation.scenarios import SCENARIOS, find_scenario, make_scene, tasks
from failsight.training.config import TrainConfig
from failsight.training.windows import Windows
from failsight.workflows.closed_loop import other_instructions
from failsight.workflows.data_sets import open_data
from failsight.workflows.train import make_config, split_of

pytestmark = pytest.mark.sim


def key(task="1box_vert_left", episode=0, perturbations="none"):
    return EpisodeKey(seed=3, task=task, episode=episode, perturbations=Perturbation.parse(perturbations))


def drive(env, act):
    events, done = [], False
    while not done:
        _, _, terminated, truncated, info = env.step(act(env))
        events += env.events()
        done = terminated or truncated
    return info, events


@pytest.mark.parametrize("actions", [2, 3])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_expert_reaches_the_bottle_on_the_side_it_is_told(scenario, actions):
    env, expert = NavigationEnv(images="on_demand", actions=actions), NavigationExpert()
    for episode in range(4):
        env.reset(options={"key": key(scenario, episode, "start_pose:4")})
        info, events = drive(env, expert.act)
        assert info["success"], (scenario, episode)
        assert [e.other for e in events if e.kind == "passed"] == [scenario.split("_")[2]]
    env.close()


def test_straight_on_hits_the_box_and_standing_still_runs_out_of_time():
    env = NavigationEnv(images="on_demand")
    env.reset(options={"key": key("2box_hori_left", 1)})
    info, events = drive(env, lambda _: np.array([0.5, 0, 0]))
    assert info["collision"]
    assert events[-1].kind == "contact" or events[-2].kind == "contact"
    assert any(e.other.startswith("box") for e in events if e.kind == "contact")
    env.reset(options={"key": key("2box_hori_left", 1)})
    info, _ = drive(env, lambda _: np.zeros(3))
    assert not info["success"]
    assert not info["collision"]
    env.close()


def test_velocities_are_in_the_robots_frame():
    env = NavigationEnv(images="on_demand")
    env.reset(options={"key": key()})
    yaw = env.pose()[2]
    before = env.pose()
    for _ in range(2):
        env.step(np.array([0.3, 0, 0]))
    moved = env.pose()[:2] - before[:2]
    np.testing.assert_allclose(moved, 0.3 * 0.8 * np.array([np.cos(yaw), np.sin(yaw)]), atol=0.02)
    np.testing.assert_allclose(env.state(), [0.3, 0, 0], atol=0.02)
    env.close()


def test_bad_actions_and_names():
    env = planar(images="on_demand")
    with pytest.raises(FailsightError, match="no episode yet"):
        _ = env.key
    env.reset(options={"key": key()})
    with pytest.raises(EpisodeDataError, match="2 finite action values"):
        env.step(np.array([0.1, np.nan]))
    with pytest.raises(UnknownNameError, match="1box_vert_left"):
        find_scenario("1box_vert_lfet")
    with pytest.raises(UnknownNameError, match="wheel_slip"):
        make_scene(replace(key(), perturbations=(Perturbation("wheel_slipp", 2),)))
    with pytest.raises(FailsightError, match="2 or 3 dimensions"):
        NavigationEnv(actions=4)
    env.close()


def test_gymnasium_knows_it():
    register_envs()
    env = gymnasium.make("failsight/Navigation-v0", task="1box_hori_right")
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    env.close()


def test_other_instructions_are_other():
    named = {task.id: task.instruction for task in tasks()}
    for task, text in other_instructions(tasks()).items():
        assert text != named[task]


def test_demonstrations_are_resumable_and_train(tmp_path):
    folder = tmp_path / "demos"
    seen = SCENARIOS[:2]
    demonstrate("navigation", folder, 4, seed=1, tasks=seen, workers=2)
    first = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    demonstrate("navigation", folder, 6, seed=1, tasks=seen, workers=2)
    now = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(now) == 6
    assert all(now[name] == first[name] for name in first)
    with pytest.raises(FailsightError, match="other recordings"):
        demonstrate("navigation", folder, 2, seed=1, tasks=SCENARIOS[4:6])
    item = read_episode(sorted(folder.glob("*.h5"))[0])
    assert item.scenario == scenario_of(sorted(folder.glob("*.h5"))[0]) == "1box_vert_left"
    data = open_data(folder)
    options = TrainConfig(action_dims=("linear_x", "linear_y"), hold_out=(seen[1],), chunk=4)
    split = split_of(data, options.hold_out, 0.34, 0)
    assert {data.episodes[e].scenario for e in (*split.train, *split.valid)} == {seen[0]}
    config = make_config(data, options, split)
    batch = Windows(data, config, split.train, None).batch(np.array([0]), None)
    assert batch.target.shape == (1, 8, 4, 2)
    with pytest.raises(FailsightError, match="no scenario"):
        split_of(data, ("3box",), 0.1, 0)


@pytest.mark.parametrize(("name", "package"), [("metaworld", "metaworld"), ("libero", "libero")])
def test_a_simulator_that_is_not_installed_says_how_to_get_it(name, package):
    from importlib.util import find_spec

    from failsight.workflows.wiring import make_sim

    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(FailsightError, match=r"is not installed\. Try: pip install"):
        make_sim(name)
