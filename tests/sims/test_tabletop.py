import hashlib
import multiprocessing

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from failsight.core.errors import EpisodeDataError, FailsightError, UnknownNameError
from failsight.core.types import EpisodeKey, Perturbation
from failsight.sims.tabletop import register_envs
from failsight.sims.tabletop.env import TabletopEnv
from failsight.sims.tabletop.expert import TabletopExpert
from failsight.sims.tabletop.perturbations import KINDS, disturb
from failsight.sims.tabletop.tasks import TASKS, find_task

pytestmark = pytest.mark.sim


def key(task="pick-red-cube-left", episode=0, perturbation="none", seed=1):
    return EpisodeKey(seed=seed, task=task, episode=episode, perturbations=Perturbation.parse(perturbation))


@pytest.fixture(scope="module")
def env():
    env = TabletopEnv(images="on_demand")
    yield env
    env.close()


def run_expert(env, episode_key, steps=200):
    env.reset(options={"key": episode_key})
    events, info, done = [], {}, False
    while not done and steps:
        _, _, terminated, truncated, info = env.step(TabletopExpert().act(env))
        events += env.events()
        done, steps = terminated or truncated, steps - 1
    return info, events


def test_there_are_twelve_tasks_in_three_families():
    assert len(TASKS) >= 8
    assert {t.family for t in TASKS.values()} == {"pick", "obstacle", "stack"}
    assert len({t.instruction() for t in TASKS.values()}) == len(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_solves_every_task(env, task):
    results = [run_expert(env, key(task, episode))[0]["success"] for episode in range(4)]
    assert sum(results) >= 3, f"expert solved {sum(results)} of 4 episodes of {task}"


def test_gymnasium_accepts_the_environment_and_its_ids():
    register_envs()
    env = gymnasium.make("failsight/Tabletop-v0", task="stack-red-cube-blue-cube")
    check_env(env.unwrapped, skip_render_check=True)
    env.close()
    named = gymnasium.make("failsight/TabletopPickRedCubeLeft-v0")
    named.reset(seed=1)
    assert named.unwrapped.task.id == "pick-red-cube-left"
    named.close()


def fork_digest(env, steps):
    digest = hashlib.blake2b()
    for _ in range(steps):
        for value in env.observe().values():
            digest.update(value.tobytes())
        _, _, terminated, truncated, info = env.step(TabletopExpert().act(env))
        digest.update(repr((env.events(), info)).encode())
        if terminated or truncated:
            break
    return digest.hexdigest()


def _digests_elsewhere(states, steps, queue):
    env = TabletopEnv(images="on_demand")
    env.reset(options={"key": key("obstacle-red-cube-left", 9)})
    result = []
    for state in states:
        env.load_state(state)
        result.append(fork_digest(env, steps))
    env.close()
    queue.put(result)


def test_200_forks_replay_identically_here_and_in_another_process(env):
    """Every perturbation, pixels and events included."""
    conditions = ["none", *(f"{kind}:{level}" for kind in KINDS for level in (3, 5))]
    states, digests = [], []
    index = 0
    while len(states) < 200:
        task = list(TASKS)[index % len(TASKS)]
        env.reset(options={"key": key(task, index, conditions[index % len(conditions)], seed=7)})
        done = False
        for step in range(60):
            if step in (4, 22, 40) and not done and len(states) < 200:
                states.append(env.save_state())
                digests.append(fork_digest(env, 8))
                env.load_state(states[-1])
                assert fork_digest(env, 8) == digests[-1], f"fork {len(states)} differs in the same environment"
                env.load_state(states[-1])
            if not done:
                _, _, terminated, truncated, _ = env.step(TabletopExpert().act(env))
                done = terminated or truncated
        index += 1
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_digests_elsewhere, args=(states, 8, queue))
    process.start()
    elsewhere = queue.get(timeout=300)
    process.join()
    assert sum(a != b for a, b in zip(digests, elsewhere, strict=True)) == 0


def test_level_zero_changes_nothing_and_levels_grow(env):
    clean = disturb(key())
    for kind in KINDS:
        zero = disturb(key(perturbation=f"{kind}:0"))
        for field in clean.__dataclass_fields__:
            assert np.array_equal(getattr(zero, field), getattr(clean, field)), f"{kind}:0 changed {field}"
        changed = [
            field
            for field in clean.__dataclass_fields__
            if not np.array_equal(getattr(disturb(key(perturbation=f"{kind}:5")), field), getattr(clean, field))
        ]
        assert changed, f"{kind}:5 changes nothing"


@pytest.mark.parametrize("kind", ["light", "background", "camera_pose", "sensor_noise"])
def test_visual_perturbations_change_pixels_but_not_physics(env, kind):
    env.reset(options={"key": key()})
    state, image = env.state(), env.observe()["observation.images.agent"].copy()
    env.reset(options={"key": key(perturbation=f"{kind}:5")})
    assert np.array_equal(env.state(), state)
    assert np.abs(env.observe()["observation.images.agent"].astype(int) - image).mean() > 1


def test_sensor_noise_reaches_both_cameras(env):
    env.reset(options={"key": key()})
    clean = env.observe()
    clean = {name: value.copy() for name, value in clean.items()}
    env.reset(options={"key": key(perturbation="sensor_noise:5")})
    for camera in ("agent", "wrist"):
        name = f"observation.images.{camera}"
        assert (env.observe()[name] != clean[name]).mean() > 0.5


def test_action_noise_is_keyed_by_step_not_by_draws(env):
    states = []
    for extra in (False, True):
        env.reset(options={"key": key(perturbation="action_noise:5")})
        for _ in range(5):
            if extra:
                env.observe()
                env.save_state()
            env.step(np.zeros(7, np.float32))
        states.append(env.state())
    assert np.array_equal(*states)


def test_paraphrases_keep_the_task_but_change_the_words(env):
    texts = [find_task("pick-red-cube-left").instruction(level) for level in range(6)]
    assert len(set(texts)) == 6
    env.reset(options={"key": key(perturbation="paraphrase:5")})
    assert env.task.instruction == texts[5]


def test_grasp_release_and_push_events_are_seen(env):
    _, events = run_expert(env, key(perturbation="push:5"))
    kinds = [e.kind for e in events]
    assert "grasp" in kinds
    assert "pushed" in kinds
    assert all(e.step >= 0 for e in events)


def test_hitting_the_wall_is_a_contact_event_with_force_and_normal(env):
    env.reset(options={"key": key("obstacle-red-cube-left", 3)})
    down = np.array([0, -1, -1, 0, 0, 0, -1], np.float32)
    events, done = [], False
    while not done:
        _, _, terminated, truncated, info = env.step(down)
        events += env.events()
        done = terminated or truncated
    hits = [e for e in events if e.kind == "contact" and e.other in ("wall", "post")]
    assert info["collision"]
    assert hits
    assert hits[-1].value > 2.0
    assert np.linalg.norm(hits[-1].normal) == pytest.approx(1, abs=1e-6)


def test_closing_on_nothing_is_a_missed_closing(env):
    env.reset(options={"key": key()})
    events = []
    for _ in range(15):
        env.step(np.array([0, 0, 0, 0, 0, 0, 1], np.float32))
        events += env.events()
    assert [e.kind for e in events] == ["missed_close"]


def test_bad_input_is_refused(env):
    with pytest.raises(UnknownNameError, match="pick-red-cube-left"):
        env.reset(options={"key": key("pick-red-cube-lefft")})
    with pytest.raises(UnknownNameError, match="slippery"):
        env.reset(options={"key": key(perturbation="slipery:3")})
    env.reset(options={"key": key()})
    with pytest.raises(EpisodeDataError, match="finite"):
        env.step(np.full(7, np.nan))
    fresh = TabletopEnv(images="on_demand")
    with pytest.raises(FailsightError, match="reset"):
        _ = fresh.task


def test_stepping_after_the_end_raises(env):
    run_expert(env, key())
    with pytest.raises(FailsightError, match="ended"):
        env.step(np.zeros(7, np.float32))


@pytest.mark.sim
def test_a_noisy_step_leaves_the_callers_action_alone():
    env = TabletopEnv(images="on_demand")
    env.reset(options={"key": key(perturbation="action_noise:5")})
    action = np.zeros(7)
    env.step(action)
    assert not action.any()
    env.close()
