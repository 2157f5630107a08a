"""Pickles of others: numbers, texts and arrays come out; anything that would run stays unread, in one sentence."""

import collections
import os
import pickle

import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError
from failsight.episodes.logged import LogOrigin
from failsight.storage.pickles import read_pickles
from failsight.workflows.import_logs import import_log, read_log


def put(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def value_of(path, keep=()):
    return next(iter(read_pickles([path], keep)))[1]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_is_plain_comes_out(tmp_path, protocol):
    given = {"a": [1, 2.5, None, True, "x"], "b": np.arange(6).reshape(2, 3), "c": np.float32(2), "d": (b"y", {"e": 1})}
    given |= {"f": collections.OrderedDict(g=np.array(["p"])), "h": np.array([1, None], object), "n": float("inf")}
    read = value_of(put(tmp_path / "a.pkl", given, protocol))
    np.testing.assert_array_equal(read["b"], given["b"])
    assert read["a"] == given["a"]
    assert (read["c"], read["d"], read["h"], read["n"]) == (2.0, ["y", {"e": 1}], [1, None], float("inf"))
    assert read["f"]["g"].tolist() == ["p"]
    assert set(value_of(tmp_path / "a.pkl", keep=("a", "c"))) == {"a", "c"}


def test_tensors_come_out_as_arrays(tmp_path):
    torch = pytest.importorskip("torch")
    given = {"h": torch.arange(6.0).reshape(2, 3).bfloat16(), "i": torch.arange(3)}
    read = value_of(put(tmp_path / "a.pkl", given))
    np.testing.assert_array_equal(read["h"], np.arange(6.0).reshape(2, 3))
    assert read["i"].tolist() == [0, 1, 2]


def test_nothing_runs(tmp_path):
    for number, value in enumerate([Evil(tmp_path / "made"), [{"x": Evil(tmp_path / "made")}], print, LogOrigin]):
        with pytest.raises(EpisodeDataError, match=rf"{number}.pkl is not read: it holds \S+, which is neither"):
            value_of(put(tmp_path / f"{number}.pkl", value))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        pickle.dumps(list(range(99)))[:-5],
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n.",
        b"ctorch\nload\n.",
        b"c__main__\nmain\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x0dgetattr.__x__\x93.",
    ],
)
def test_damage_is_one_sentence(tmp_path, data):
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(EpisodeDataError, match=r"a\.pkl is not read") as refused:
        value_of(tmp_path / "a.pkl")
    assert "\n" not in str(refused.value)


def test_what_takes_too_much_memory_is_refused(tmp_path):
    bomb = b"\x80\x04cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86tR."
    (tmp_path / "a.pkl").write_bytes(bomb)
    with pytest.raises(EpisodeDataError, match=r"a\.pkl"):
        value_of(tmp_path / "a.pkl")


# ------------------------------------------------------------------------------------------------------------ MIST


def mist_episode(success, steps=4, task=0):
    """Written from source: the keys of the collecting script, states after each action."""
    rng = np.random.default_rng(task)
    return {
        "actions": [rng.random(7).astype(np.float32) for _ in range(steps)],
        "features": [np.full(5, t, np.float32) for t in range(steps)],
        "rewards": [0.0] * steps,
        "robot_states": [{"qpos": np.zeros(9), "eef_pos": np.array([t, 0, 1.0])} for t in range(steps)],
        "steps": [{"action": np.zeros(7), "collision": False, "collision_geoms": ["a", "b"]}] * steps,
        "success": success,
        "collision_occurred": False,
        "collision_step": None,
        "instruction": "pick up the bowl",
        "task_id": task,
    }


def test_mist_rollouts_are_read_with_each_state_before_its_action(tmp_path):
    put(tmp_path / "success_rollouts.pkl", [mist_episode(True), mist_episode(True, 6, task=1)])
    put(tmp_path / "failure_rollouts.pkl", [mist_episode(False, 5)])
    found = read_log(tmp_path).found
    assert found == (
        "MIST's success_rollouts.pkl and failure_rollouts.pkl, 3 episodes, 1 failed, 7 actions, 3 states, "
        "hidden states of 5"
    )
    run = import_log("", tmp_path, tmp_path / "run", LogOrigin(policy="openvla", suite="libero", rate_hz=20.0))
    first = next(run.read())
    assert run.meta.observation_spec.state == ("x_m", "y_m", "z_m")
    assert run.meta.action_spec.names == ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
    assert (first.meta.task, first.meta.instruction, first.meta.length) == ("task_0", "pick up the bowl", 3)
    assert first.states[:, 0].tolist() == [0, 1, 2]  # after actions 0, 1, 2: before actions 1, 2, 3
    assert first.hidden[:, 0].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(first.actions, np.stack(mist_episode(True)["actions"])[1:])
    assert "first step of each episode" in run.meta.note


def test_a_mist_episode_in_the_wrong_file_is_refused(tmp_path):
    put(tmp_path / "failure_rollouts.pkl", [mist_episode(False), mist_episode(True)])
    with pytest.raises(EpisodeDataError, match=r"failure_rollouts.pkl\[1\] says success"):
        read_log(tmp_path)
    put(tmp_path / "failure_rollouts.pkl", [{**mist_episode(False), "actions": [np.zeros(6)] * 4}])
    with pytest.raises(EpisodeDataError, match="actions have 6 entries"):
        read_log(tmp_path)
    put(tmp_path / "failure_rollouts.pkl", [Evil(tmp_path / "made")])
    with pytest.raises(EpisodeDataError, match="neither number, text nor array"):
        read_log(tmp_path)


def test_file_names_of_openvla_say_how_an_episode_ended(tmp_path):
    for i in range(3):
        name = f"2025_01_01--openvla_oft--episode={i + 1}--success={i != 1}--task=open_the_drawer.npz"
        np.savez(tmp_path / name, action=np.ones((4, 7)) * i, hidden=np.ones((4, 6)))
    log = read_log(tmp_path).log
    assert [(e.task, e.number, e.success) for e in log.episodes] == [
        ("open_the_drawer", 1, True),
        ("open_the_drawer", 2, False),
        ("open_the_drawer", 3, True),
    ]
    stored = next(import_log("", tmp_path, tmp_path / "run", LogOrigin(policy="p", suite="s")).read())
    assert (stored.states.shape, stored.actions.shape, stored.hidden.shape) == ((4, 0), (4, 7), (4, 6))
    np.savez(tmp_path / "other.npz", action=np.ones((4, 7)), hidden=np.ones((4, 6)))
    with pytest.raises(EpisodeDataError, match=r"name of .*other.npz does not say"):
        read_log(tmp_path)


# ------------------------------------------------------------------------------------------------------------ SAFE


def safe_episode(folder, name, steps=3, hidden=True, **changes):
    """Written from source: the columns and keys its loader reads."""
    columns = [f"action/{n}" for n in ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "dgripper")]
    columns += ["action/token_0_prob", "action/token_0_entropy", "action/total_var"]
    lines = [",".join([str(t), *(str(t + i / 10) for i in range(len(columns)))]) for t in range(steps)]
    (folder / f"{name}.csv").write_text("\n".join([",".join(["step", *columns]), *lines]) + "\n")
    record = {"hidden_states": np.arange(steps * 4.0).reshape(steps, 2, 2), "task_description": "close the drawer"}
    record |= {"episode_success": int(name[-1]), "mp4_path": "x.mp4", **changes}
    if hidden:
        put(folder / f"{name}.pkl", record)


@pytest.mark.parametrize("hidden", [True, False])
def test_rollouts_of_safe(tmp_path, hidden):
    for name in ("task3--ep0--succ1", "task3--ep1--succ0", "task4--ep0--succ1"):
        safe_episode(tmp_path, name, hidden=hidden)
    log, found = read_log(tmp_path)
    assert found.startswith(f"3 CSV files of SAFE, {3 * hidden} with hidden states beside them, 3 episodes, 1 failed")
    assert [(e.task, e.number, e.success) for e in log.episodes] == [
        ("task3", 0, True),
        ("task3", 1, False),
        ("task4", 0, True),
    ]
    assert [d.name for d in log.actions][-2:] == ["dyaw", "gripper"]
    assert [c.name for c in log.columns] == ["action/token_0_prob", "action/token_0_entropy", "action/total_var"]
    first = log.episodes[0]
    np.testing.assert_allclose(first.actions[1], 1 + np.arange(7) / 10)
    np.testing.assert_allclose(first.signals[2], [2.7, 2.8, 2.9])
    assert first.instruction == ("close the drawer" if hidden else "task3")
    assert (first.hidden is not None) == hidden
    if hidden:
        assert first.hidden.tolist() == [[1, 2], [5, 6], [9, 10]]  # the mean over two tokens


def test_rollouts_of_safe_that_contradict_themselves(tmp_path):
    safe_episode(tmp_path, "task3--ep0--succ1", episode_success=0)
    with pytest.raises(EpisodeDataError, match="another outcome than its name"):
        read_log(tmp_path)
    safe_episode(tmp_path, "task3--ep0--succ1")
    safe_episode(tmp_path, "task3--ep1--succ1", hidden=False)
    with pytest.raises(EpisodeDataError, match=r"ep1--succ1.csv has no .pkl beside it"):
        read_log(tmp_path)


# ----------------------------------------------------------------------------------------------------------- FIPER


def fiper_episode(steps=3, **metadata):
    """Written from source: what its task manager reads, as a diffusion policy makes it."""
    rng = np.random.default_rng(0)
    rollout = []
    for t in range(steps):
        drawn = rng.random((5, 8, 2)).astype(np.float32)
        step = {"obs_embedding": np.full((1, 4), t, np.float32), "action": drawn[2, 1:5], "action_pred": drawn}
        rollout.append(
            {**step, "agent_pos": np.array([[9, 9], [t, 1]], np.float32), "rgb": np.zeros((2, 2, 3), np.uint8)}
        )
    return {"metadata": metadata, "rollout": rollout}


def test_rollouts_of_fiper(tmp_path):
    for folder, names in (("calibration", ["episode_s_0"]), ("test", ["episode_f_0", "episode_s_1"])):
        (tmp_path / "push_t/rollouts" / folder).mkdir(parents=True)
        for name in names:
            put(tmp_path / "push_t/rollouts" / folder / f"{name}.pkl", fiper_episode())
    log, found = read_log(tmp_path / "push_t")
    assert found == "3 pickles in FIPER's folders, 3 episodes, 1 failed, 2 actions, 2 states, hidden states of 4"
    first, drawn = log.episodes[0], fiper_episode()["rollout"]
    assert (first.task, [e.success for e in log.episodes]) == ("push_t", [True, False, True])
    assert first.states.tolist() == [[0, 1], [1, 1], [2, 1]]
    np.testing.assert_array_equal(first.chunks[1], drawn[1]["action"])
    np.testing.assert_array_equal(first.samples[1], drawn[1]["action_pred"][:, 1:5])
    put(tmp_path / "push_t/rollouts/test/episode_s_1.pkl", fiper_episode(successful=False))
    with pytest.raises(EpisodeDataError, match="or they differ"):
        read_log(tmp_path / "push_t")
