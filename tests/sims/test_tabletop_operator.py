"""What makes the person of the takeovers capable: each mending with episodes that are lost without it."""

import numpy as np
import pytest

from failsight.core.types import EpisodeKey, Perturbation
from failsight.sims.tabletop import clearance, operator
from failsight.sims.tabletop.clearance import best_grasp, highest_between
from failsight.sims.tabletop.env import TabletopEnv
from failsight.sims.tabletop.noticed import Noticed
from failsight.sims.tabletop.operator import TabletopOperator

pytestmark = pytest.mark.sim

SLIPPERY = [("obstacle-red-cube-left", 7, "slippery:5"), ("stack-green-cube-red-cube", 18, "slippery:5")]
SHAKING = [("stack-red-cube-blue-cube", 10, "action_noise:4"), ("stack-green-cube-red-cube", 4, "action_noise:4")]
POSTS = [("stack-blue-cube-green-cube", 0, "object_pose:5"), ("stack-blue-cube-green-cube", 3, "object_pose:5")]
TUMBLED = [("obstacle-red-cube-left", 8, "gripper_fault:5")]
BESIDE_BIN = [("pick-green-cube-left", 4, "gripper_fault:5"), ("pick-blue-cube-right", 17, "gripper_fault:5")]
BESIDE_WALL = [("obstacle-red-cube-left", 4, "gripper_fault:5")]
OTHERS = [
    ("pick-green-cube-left", 3, "push:5"),
    ("pick-red-cube-left", 0, "none"),
    ("pick-red-cube-left", 1, "robot_start:5"),
]


@pytest.fixture(scope="module")
def env():
    env = TabletopEnv(images="on_demand")
    yield env
    env.close()


def solved(env, episodes):
    return [_solve(env, *episode) for episode in episodes]


def _key(task, episode, condition):
    return EpisodeKey(seed=7100, task=task, episode=episode, perturbations=Perturbation.parse(condition))


def _solve(env, task, episode, condition):
    env.reset(options={"key": _key(task, episode, condition)})
    person = TabletopOperator()
    while True:
        _, _, terminated, truncated, info = env.step(person.act(env))
        if terminated or truncated:
            return info["success"]


@pytest.mark.parametrize("episodes", [SLIPPERY, SHAKING, POSTS, TUMBLED, BESIDE_BIN, BESIDE_WALL, OTHERS])
def test_the_operator_solves_what_is_hard(env, episodes):
    assert all(solved(env, episodes))


def test_what_slips_is_lost_at_full_speed(env, monkeypatch):
    monkeypatch.setattr(Noticed, "pace", 1.0)
    assert not any(solved(env, SLIPPERY))


def test_a_shaking_arm_is_lost_when_nobody_notices(env, monkeypatch):
    monkeypatch.setattr(Noticed, "shakes", False)
    assert not all(solved(env, SHAKING))


def test_a_shaking_arm_is_never_slowed_down():
    noticed = Noticed(_key(*SHAKING[0]), 0, np.zeros(3), np.zeros(7), [0.3] * 12, slips=True)
    assert noticed.pace == 1.0
    noticed.astray = [0.01] * 12
    assert noticed.pace == 0.5


def _blind_to(monkeypatch, name):
    monkeypatch.setattr(TabletopEnv, name, lambda self: None)


def test_posts_are_hit_when_they_are_not_seen(env, monkeypatch):
    _blind_to(monkeypatch, "post_position")
    assert not all(solved(env, POSTS))


def test_a_wall_is_hit_when_it_is_not_seen(env, monkeypatch):
    _blind_to(monkeypatch, "wall_y")
    assert not all(solved(env, BESIDE_WALL))


def test_what_fell_beside_a_bin_is_out_of_reach_when_the_bin_is_not_seen(env, monkeypatch):
    monkeypatch.setattr(clearance, "BIN_Y", {"left": 5.0})
    assert not any(solved(env, BESIDE_BIN))


def test_a_tumbled_cube_is_lost_by_its_heading_alone(env, monkeypatch):
    monkeypatch.setattr(operator, "_face", lambda axes: operator.nearest_face(operator._heading(axes[:, 0])))
    assert not any(solved(env, TUMBLED))


def test_slipperiness_is_not_known_before_it_is_felt(env):
    """Two tables that differ in friction only: the same actions until something is between the fingers."""
    tracks = []
    for friction in (1.0, 0.06):
        env.reset(options={"key": _key(*OTHERS[1])})
        env._model.geom_friction[env._object_geoms, 0] = friction
        person, actions = TabletopOperator(), []
        while env.held is None:
            actions.append(person.act(env))
            assert not person._noticed.slips
            env.step(actions[-1])
        tracks.append(np.array(actions))
    shared = min(map(len, tracks)) - 1
    assert shared > 10
    assert np.array_equal(tracks[0][:shared], tracks[1][:shared])


def test_equal_futures_of_one_state_are_driven_equally(env):
    """What was felt in one future is forgotten in the next."""
    env.reset(options={"key": _key(*SLIPPERY[0])})
    person = TabletopOperator()
    for _ in range(15):
        env.step(person.act(env))
    state, futures = env.save_state(), []
    for _ in range(2):
        env.load_state(state)
        futures.append([])
        while not (futures[-1] and person._noticed.slips):
            futures[-1].append(person.act(env))
            env.step(futures[-1][-1])
    assert len(futures[0]) > 5
    env.load_state(state)
    assert np.array_equal(person.act(env), TabletopOperator().act(env))
    assert not person._noticed.slips


def test_a_state_that_is_no_step_away_is_another_story(env):
    """The next step of the same episode, but not where the last action led."""
    env.reset(options={"key": _key(*OTHERS[1])})
    person = TabletopOperator()
    person.act(env)
    env.step(np.zeros(7))
    person.act(env)
    assert len(person._noticed.astray) == 1
    person._noticed.target_m = person._noticed.target_m + 0.05
    env.step(np.zeros(7))
    person.act(env)
    assert person._noticed.astray == []


def post(x, y):
    return clearance._circle(np.array([x, y]), 0.012, 0.10)


def test_a_post_beside_the_palm_leaves_room_and_one_across_it_turns_the_grasp():
    """The palm reaches 2.5 cm along and 5 cm across; a post 5 cm away begins at 3.8 cm."""
    place, yaws = np.array([0.0, 0.0, 0.02]), (0.0, np.pi / 2)
    along = best_grasp(post(0.05, 0.0), place, yaws)
    assert (along.yaw, along.room) == (0.0, pytest.approx(0.013))
    across = best_grasp(post(0.0, 0.05), place, yaws)
    assert (across.yaw, across.room) == (np.pi / 2, pytest.approx(0.013))
    assert np.array_equal(across.point, place)


def test_the_way_over_a_post_is_as_high_as_the_post():
    start, end = np.array([-0.1, 0.0, 0.1]), np.array([0.1, 0.0, 0.1])
    assert highest_between(post(0.0, 0.05), start, end, 0.065) == 0.10
    assert highest_between(post(0.0, 0.09), start, end, 0.065) == 0.0
    assert highest_between(post(0.2, 0.0), start, end, 0.065) == 0.0


class Lying:
    """An object on its side whose axis points 30 degrees from x."""

    def axes(self, name):
        axis = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6), 0.0])
        return np.stack([[0.0, 0.0, 1.0], np.cross(axis, [0.0, 0.0, 1.0]), axis], 1)


def test_a_lying_cylinder_is_grasped_across_its_axis_and_a_cube_by_either_pair_of_faces():
    assert operator._yaws(Lying(), "yellow_cylinder") == pytest.approx([np.pi / 6])
    assert operator._yaws(Lying(), "red_cube") == pytest.approx([np.pi / 6, -np.pi / 3])
