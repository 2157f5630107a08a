"""Somebody else's policy under watch: asked in its own way, recorded without being touched, judged and helped."""

import warnings

import numpy as np
import pytest
from conftest import recurrent_arrays
from test_protector import save

import failsight
from failsight.core.errors import BundleError, EpisodeDataError, FailsightError, StorageError
from failsight.core.specs import ActionSpec, Dimension
from failsight.core.types import EpisodeKey
from failsight.episodes.run import Run
from failsight.episodes.verdicts import read_verdicts
from failsight.labels.table import read_labels
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.runtime.policy_face import PolicyFace, last_token, read_answer
from failsight.testing import fakes

SPECS = {"actions": fakes.ACTIONS, "observations": fakes.OBSERVATIONS, "clock": None}


class Tensor:
    """What of a torch tensor is used."""

    def __init__(self, values):
        self._values = np.asarray(values, np.float32)
        self.ndim = self._values.ndim

    def detach(self):
        return self

    float = cpu = detach

    def __array__(self, dtype=None, copy=None):
        return self._values

    def new_tensor(self, values):
        return Tensor(values)

    def __getitem__(self, index):
        return Tensor(self._values[index])


def chunk_for(observation, hidden=False):
    state = np.asarray(observation["observation.state"] if "observation.state" in observation else observation["state"])
    at = state.reshape(-1)[:3]
    return np.tile(np.array([*(-at / max(float(np.linalg.norm(at)), 1e-6)), -1.0], np.float32), (5, 1))


class LeRobotLike:
    """A chunk, a queue, a configuration, tensors."""

    class config:  # noqa: N801 (as there)
        n_action_steps = 3

    def __init__(self):
        self.resets, self.asked, self._queue = 0, 0, []

    def reset(self):
        self.resets, self._queue = self.resets + 1, []

    def predict_action_chunk(self, batch):
        self.asked += 1
        return Tensor(chunk_for(batch)[None])

    def select_action(self, batch):
        if not self._queue:
            self.asked += 1
            self._queue = list(chunk_for(batch)[: self.config.n_action_steps])
        return Tensor(self._queue.pop(0)[None])


class OpenpiLike:
    """A map in, a map out."""

    def infer(self, obs):
        chunk = chunk_for(obs)
        return {"actions": chunk.astype(np.float64), "hidden": np.ones(8), "samples": np.stack([chunk, chunk + 0.1])}


def episode(watched, key, success=None, ask="select_action", name="observation.state", most=40):
    """Drive a point home; returns the actions that were sent and whether it arrived."""
    sim = fakes.PointSim()
    observation, _ = sim.reset(options={"key": key})
    watched.reset("home", "go home")
    sent, arrived, over = [], False, False
    while not over and len(sent) < most:
        seen = {name: observation["observation.state"], "prompt": "go home"}
        action = np.asarray(getattr(watched, ask)(seen)).reshape(-1)[:4]
        sent.append(action)
        observation, _, arrived, late, _ = sim.step(action)
        over = arrived or late
    watched.end(arrived if success is None else success)
    return np.array(sent), arrived


def key(number):
    return EpisodeKey(seed=5, task="home", episode=number)


def test_the_many_ways_to_ask_a_policy_give_the_same_actions(tmp_path):
    policies = {
        "chunk": (LeRobotLike(), {}),
        "action": (LeRobotLike(), {"calls": "select_action"}),
        "map": (OpenpiLike(), {"execute": 3}),
        "call": (chunk_for, {"execute": 3}),
        "ours": (fakes.PointPolicy(), {}),
    }
    found = {}
    for name, (policy, more) in policies.items():
        with failsight.watch(policy, record=tmp_path / name, **SPECS, **more) as watched:
            found[name], arrived = episode(watched, key(1), name="state" if name == "map" else "observation.state")
            assert arrived
        run = Run(tmp_path / name)
        (meta,) = run.episodes
        assert (meta.outcome, meta.length, meta.instruction) == ("success", len(found[name]), "go home")
        recorded = next(run.read())
        assert recorded.actions.tobytes() == found[name].tobytes(), (
            "what is recorded is what the policy did, to the bit"
        )
    assert all(actions.tobytes() == found["chunk"].tobytes() for actions in found.values())
    assert policies["chunk"][0].asked == policies["action"][0].asked == int(np.ceil(len(found["chunk"]) / 3))
    shapes = {name: set(Run(tmp_path / name).meta.shapes) for name in policies}
    assert shapes["action"] == {"policy.chunk"}
    assert shapes["map"] == shapes["ours"] == {"policy.chunk", "policy.hidden", "policy.samples"}


def test_answers_come_back_as_the_policy_gives_them():
    watched = failsight.watch(LeRobotLike(), **SPECS)
    watched.reset("home")
    answer = watched.select_action({"observation.state": Tensor([[0.5, 0.1, 0.1, 1.0]])})
    assert isinstance(answer, Tensor)
    assert np.asarray(answer).shape == (1, 4)
    plain = failsight.watch(OpenpiLike(), **SPECS)
    plain.reset("home")
    assert plain.infer({"state": np.ones(4, np.float32)})["actions"].shape == (1, 4)
    assert isinstance(plain({"state": np.ones(4, np.float32)}), np.ndarray)


def test_a_recording_says_how_each_episode_ended_and_what_nobody_knows(tmp_path):
    run_folder = tmp_path / "run"
    watched = failsight.watch(chunk_for, record=run_folder, execute=3, fingerprint="mine-1", **SPECS)
    for number, ending in enumerate((True, False, None)):
        sim = fakes.PointSim()
        observation, _ = sim.reset(options={"key": key(number)})
        watched.reset("home", horizon=30)
        for _ in range(6 + number):
            observation, *_ = sim.step(np.asarray(watched(observation)))
        watched.end(ending)
    watched.reset("home")
    watched({"observation.state": np.ones(4, np.float32)})  # never ended: nobody knows either
    watched.close()
    run = Run(run_folder)
    assert [e.outcome for e in run.episodes] == ["success", "failure", "unknown", "unknown"]
    assert [e.length for e in run.episodes] == [6, 7, 8, 1]
    assert [e.horizon for e in run.episodes] == [30] * 4
    assert {ticket: label.success for ticket, label in read_labels(run).items()} == {0: True, 1: False}
    assert (run.meta.policy, run.meta.sim, run.meta.bundle) == ("mine-1", "watched", "")
    with pytest.raises(FailsightError, match="holds a finished run"):
        failsight.watch(chunk_for, record=run_folder, **SPECS)


def test_a_killed_recording_goes_on_where_it_was(tmp_path):
    first = failsight.watch(chunk_for, record=tmp_path / "run", execute=3, **SPECS)
    episode(first, key(0))
    first.reset("home")
    first({"observation.state": np.ones(4, np.float32)})
    first._recording._stack.close()  # what the system does when a process dies
    first._closing.detach()
    with pytest.raises(EpisodeDataError, match="not finished; record into it again with watch"):
        Run(tmp_path / "run")
    with pytest.raises(FailsightError, match="was recorded with another policy"):
        failsight.watch(chunk_for, record=tmp_path / "run", fingerprint="other", **SPECS)
    with failsight.watch(chunk_for, record=tmp_path / "run", execute=3, **SPECS) as again:
        episode(again, key(1))
    assert [e.outcome for e in Run(tmp_path / "run").episodes] == ["success", "success"]


def test_whatever_breaks_on_our_side_a_policy_that_is_only_recorded_goes_on(tmp_path, monkeypatch):
    stops = []
    watched = failsight.watch(chunk_for, record=tmp_path / "run", execute=3, stop=stops.append, **SPECS)
    watched.reset("home")
    seen = {"observation.state": np.array([0.5, 0.1, 0.1, 1.0], np.float32)}
    assert watched(seen).tolist() == chunk_for(seen)[0].tolist()
    bad = {"observation.state": np.array([np.nan, 0.1, 0.1, 1.0], np.float32)}
    watched(bad)
    with pytest.warns(UserWarning, match="Nobody watches this episode any more: recorder: Step 1 has a state"):
        watched(seen)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert watched(seen).tolist() == chunk_for(seen)[0].tolist(), "once is enough, and the policy goes on"
    watched.end(True)
    watched.reset("home")
    watched(seen)
    watched.end(True)
    watched.close()
    assert [e.outcome for e in Run(tmp_path / "run").episodes] == ["errored", "success"]
    assert not stops, "who only watches stops nobody"


def test_a_watch_that_is_refused_lets_go_of_the_folder(tmp_path):
    for _ in range(2):
        with pytest.raises(FailsightError, match="stop is called") as error:
            failsight.watch(chunk_for, record=tmp_path / "run", stop="now", **SPECS)
        assert not (tmp_path / "run").exists(), error
    closed = failsight.watch(chunk_for, record=tmp_path / "run", execute=3, **SPECS)
    closed.close()
    with pytest.raises(FailsightError, match="This watch is closed"):
        closed.reset("home")


def test_a_full_disk_is_said_when_the_episode_ends(tmp_path, monkeypatch):
    watched = failsight.watch(chunk_for, record=tmp_path / "run", execute=3, **SPECS)

    def full(*_):
        raise StorageError("disk full")

    monkeypatch.setattr("failsight.episodes.recorder.EpisodeRecorder.add", full)
    watched.reset("home")
    seen = {"observation.state": np.array([0.5, 0.1, 0.1, 1.0], np.float32)}
    watched(seen)
    with pytest.warns(UserWarning, match="disk full"):
        watched(seen)
    with pytest.raises(StorageError, match="was not recorded: disk full"):
        watched.end(True)
    watched.close()
    assert not (tmp_path / "run/meta/info.json").exists()
    assert not list((tmp_path / "run").rglob("*.partial")), "nothing half-written stays"


def test_an_answer_that_changes_its_shape_is_no_recording(tmp_path):
    lengths = iter([5, 5, 4])

    def uneven(observation):
        return chunk_for(observation)[: next(lengths)]

    watched = failsight.watch(uneven, record=tmp_path / "run", execute=1, **SPECS)
    watched.reset("home")
    for i in range(3):
        watched({"observation.state": np.full(4, 0.1 * i, np.float32)})
    assert "the policy answers chunk (4, 4), and before chunk (5, 4)" in watched.end(True).error
    watched.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save(tmp_path_factory.mktemp("watch") / "bundle", policy="OpenpiLike")


def test_a_bundle_judges_helps_and_leaves_its_verdicts_with_the_recording(bundle, tmp_path):
    alarms = []
    with failsight.watch(
        OpenpiLike(), bundle, rungs=["slow"], record=tmp_path / "run", on_alarm=alarms.append, execute=3, clock=None
    ) as watched:
        sent, _ = episode(watched, key(1), name="state")
        assert watched.command.decision.kind == "slow"
    assert len(alarms) == 1
    assert np.linalg.norm(sent[-2][:3]) == pytest.approx(0.5, abs=1e-5), "half speed"
    (judge, frame), *_ = read_verdicts(tmp_path / "run").items()
    assert judge.policy == "OpenpiLike"
    assert frame["trigger"].any()
    assert Run(tmp_path / "run").meta.arm == "slow"


def test_what_was_recorded_can_be_replayed_to_the_bit(bundle, tmp_path):
    with failsight.watch(
        OpenpiLike(), bundle, rungs=["slow"], record=tmp_path / "run", execute=3, clock=None
    ) as watched:
        episode(watched, key(1), name="state")
    (recorded,) = Run(tmp_path / "run").read()
    (_, frame), *_ = read_verdicts(tmp_path / "run").items()
    protector = failsight.Protector(bundle, rungs=["slow"], execute=3, clock=None)
    protector.start(recorded.meta.task, recorded.meta.instruction)
    commands = [protector.step(step.state, step.output if step.replan else None) for step in recorded.steps()]
    assert np.stack([c.action for c in commands]).tobytes() == recorded.actions.tobytes()
    rows = protector.end(True).rows
    for name in ("step", "p_fail", "margin", "trigger", "why", "blind", "decision", "reason", "guard"):
        assert frame[name].tolist() == [getattr(row, name) for row in rows], name


def test_in_the_shadow_a_bundle_judges_and_nothing_acts(bundle, tmp_path):
    watched = failsight.watch(OpenpiLike(), bundle, rungs=["safe_stop"], shadow=True, execute=3, clock=None)
    plain = failsight.watch(OpenpiLike(), execute=3, **SPECS)
    judged, _ = episode(watched, key(1), name="state")
    alone, _ = episode(plain, key(1), name="state")
    assert judged.tobytes() == alone.tobytes()
    assert watched.protector.trace.trigger_step is not None


def test_a_policy_that_breaks_is_a_stop_where_it_is_protected_and_its_own_affair_where_not(bundle):
    class Breaks(OpenpiLike):
        calls = 0

        def infer(self, obs):
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("out of memory")
            return super().infer(obs)

    stops = []
    seen = {"state": np.array([0.5, 0.1, 0.1, 1.0], np.float32)}
    watched = failsight.watch(
        Breaks(), bundle, rungs=[], execute=1, clock=None, fingerprint="OpenpiLike", stop=stops.append
    )
    watched.reset("home")
    watched.step(seen)
    command = watched.step(seen)
    assert command.stop
    assert stops == ["policy: RuntimeError: out of memory"]
    with pytest.raises(FailsightError, match="latched"):
        watched.reset("home")
    watched.release(by="Ada")
    alone = failsight.watch(Breaks(), execute=1, **SPECS)
    alone.reset("home")
    alone(seen)
    with pytest.raises(RuntimeError, match="out of memory"):
        alone(seen)


def test_an_interrupt_stops_the_robot_and_goes_on_up(bundle):
    class Interrupted(OpenpiLike):
        calls = 0

        def infer(self, obs):
            self.calls += 1
            if self.calls > 1:
                raise KeyboardInterrupt
            return super().infer(obs)

    stops = []
    watched = failsight.watch(
        Interrupted(), bundle, rungs=[], execute=1, clock=None, fingerprint="OpenpiLike", stop=stops.append
    )
    watched.reset("home")
    seen = {"state": np.array([0.5, 0.1, 0.1, 1.0], np.float32)}
    watched.step(seen)
    with pytest.raises(KeyboardInterrupt):
        watched.step(seen)
    assert stops == ["policy: KeyboardInterrupt"]
    assert watched.protector.latched == "policy: KeyboardInterrupt"


@pytest.mark.parametrize(
    ("policy", "more", "says"),
    [
        (LeRobotLike, {}, r"fitted on policy OpenpiLike, this one is LeRobotLike"),
        (LeRobotLike, {"fingerprint": "OpenpiLike"}, r"level hidden.*Given: actions, proprioception"),
        (
            OpenpiLike,
            {"actions": ActionSpec(dimensions=(), frame="", rate_hz=1, gripper_closed_sign=1)},
            "Action specs",
        ),
        (object, {}, "A object cannot be asked for actions: it has no predict_action_chunk, select_action, infer or a"),
        (OpenpiLike, {"calls": "select_action"}, "has no select_action"),
        (OpenpiLike, {"rungs": ["sloow"]}, "Did you mean slow"),
        (OpenpiLike, {"rungs": [3]}, "a int has not"),
        (OpenpiLike, {"hidden": 3}, "hidden is a network or a function"),
        (OpenpiLike, {"samples": -1}, "samples: expected a whole number"),
        (OpenpiLike, {"execute": 2.5}, "execute: expected a whole number"),
        (OpenpiLike, {"record": ""}, "record: the text is empty"),
        (OpenpiLike, {"stop": "now"}, "stop is called, and a str cannot be"),
        (lambda: OpenpiLike, {}, "OpenpiLike is a class; watch one that was made of it"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_moves(bundle, policy, more, says):
    with pytest.raises(FailsightError, match=says):
        failsight.watch(policy(), bundle, **more)


def test_a_map_without_what_the_bundle_reads_is_refused_at_the_first_tick(bundle):
    class Bare:
        def infer(self, obs):
            return {"actions": chunk_for(obs)}

    watched = failsight.watch(Bare(), bundle, fingerprint="OpenpiLike", clock=None)
    watched.reset("home")
    with pytest.raises(BundleError, match="level hidden"):
        watched.step({"state": np.ones(4, np.float32)})


def test_actions_alone_are_recorded_and_a_bundle_of_them_needs_no_more(tmp_path):
    spec = ActionSpec(
        dimensions=tuple(Dimension(name=f"d{a}", kind="delta", unit="m") for a in "xy"),
        frame="",
        rate_hz=10.0,
        gripper_closed_sign=1,
    )
    rng = np.random.default_rng(0)
    with failsight.watch(lambda seen: rng.normal(size=2), record=tmp_path / "run", actions=spec, state=None) as watched:
        for _ in range(2):
            watched.reset("wander")
            for _ in range(4):
                watched(None)
            watched.end(True)
    episodes = list(Run(tmp_path / "run").read())
    assert [e.actions.shape for e in episodes] == [(4, 2)] * 2
    assert [e.states.shape for e in episodes] == [(4, 0)] * 2


class Network:
    """What of a torch module is used."""

    def __init__(self):
        self._hooks = []

    def register_forward_hook(self, hook):
        self._hooks.append(hook)
        network = self

        class Handle:
            def remove(self):
                network._hooks.remove(hook)

        return Handle()

    def __call__(self, tokens):
        answer = type("Output", (), {"last_hidden_state": Tensor(tokens)})()
        for hook in self._hooks:
            hook(self, (tokens,), answer)
        return answer


def test_hidden_states_come_through_a_forward_hook():
    network = Network()

    def policy(observation):
        network(np.arange(12.0).reshape(1, 3, 4))  # the prompt: three tokens
        network(np.full((1, 1, 4), 2.0))  # one token more
        return chunk_for(observation)

    face = PolicyFace(policy, hidden=network)
    output = face.answer({"state": np.ones(4)}, 0).output
    assert output.hidden.tolist() == [5.0, 5.5, 6.0, 6.5], "the mean of [8, 9, 10, 11] and [2, 2, 2, 2]"
    assert face.answer({"state": np.ones(4)}, 1).output.hidden.tolist() == [5.0, 5.5, 6.0, 6.5], (
        "each inference its own"
    )
    face.close()
    assert network._hooks == []
    with pytest.raises(FailsightError, match="was not called in this inference"):
        PolicyFace(lambda observation: chunk_for(observation), hidden=network).answer({"state": np.ones(4)}, 0)
    assert last_token((Tensor([[[1.0, 2.0]]]), None)).tolist() == [1.0, 2.0]


def test_a_queue_keeps_the_hidden_state_of_the_inference_that_filled_it():
    network, policy = Network(), LeRobotLike()
    ask, values = policy.select_action, iter((1.0, 2.0))

    def select_action(batch):
        if not policy._queue:
            network(np.full((1, 4), next(values)))
        return ask(batch)

    policy.select_action = select_action
    face = PolicyFace(policy, hidden=network, calls="select_action")
    seen = {"observation.state": np.ones(4, np.float32)}
    assert [float(face.answer(seen, i).output.hidden[0]) for i in range(6)] == [1, 1, 1, 2, 2, 2]


def test_what_is_queued_is_dropped_when_somebody_else_acted(tmp_path):
    policy, predictor = LeRobotLike(), RecurrentPredictor(recurrent_arrays(hidden=0))
    folder = save(tmp_path / "bundle", policy="LeRobotLike", predictor=predictor)
    person = {"person": lambda seen: np.zeros(4, np.float32), "rungs": ["takeover"]}
    watched = failsight.watch(policy, folder, calls="select_action", clock=None, **person)
    watched.reset("home")
    for i in range(8):
        watched.step({"observation.state": np.full(4, 0.5 + 0.01 * i, np.float32)})
    assert watched.command.driver == "operator"
    asked = policy.asked
    watched.step({"observation.state": np.full(4, 0.7, np.float32)})
    assert policy.asked == asked + 1, "the policy looks again instead of going on with what it had queued"


def test_a_recording_in_which_nothing_was_ever_done_is_none(tmp_path):
    def broken(observation):
        raise RuntimeError("no weights")

    watched = failsight.watch(broken, record=tmp_path / "run", **SPECS)
    watched.reset("home")
    with pytest.raises(RuntimeError, match="no weights"):
        watched(np.ones(4, np.float32))
    watched.close()
    assert not (tmp_path / "run").exists()


def test_the_tick_before_a_policy_broke_is_recorded(tmp_path):
    calls = iter([1, 2])

    def breaks(observation):
        next(calls)
        return chunk_for(observation)[:1]

    watched = failsight.watch(breaks, record=tmp_path / "run", **SPECS)
    watched.reset("home")
    seen = {"observation.state": np.array([0.5, 0.1, 0.1, 1.0], np.float32)}
    watched(seen), watched(seen)
    with pytest.raises(StopIteration):
        watched(seen)
    watched.close()
    (meta,) = Run(tmp_path / "run").episodes
    assert (meta.outcome, meta.length, meta.error) == ("errored", 2, "policy: StopIteration")


def test_further_samples_leave_the_hidden_state_alone():
    network, values = Network(), iter([1.0, 5.0, 5.0, 2.0, 5.0, 5.0])

    def policy(observation):
        network(np.full((1, 4), next(values)))
        return np.zeros((3, 2))

    face = PolicyFace(policy, hidden=network, samples=2)
    assert [float(face.answer(None, i).output.hidden[0]) for i in range(2)] == [1.0, 2.0]


def test_actions_for_two_robots_are_not_two_actions_for_one():
    class Batched:
        def select_action(self, batch):
            return np.zeros((2, 4))

    with pytest.raises(FailsightError, match="select_action gave 2 actions; one robot"):
        PolicyFace(Batched()).answer({}, 0)


def test_samples_are_drawn_by_asking_again():
    rng = np.random.default_rng(0)
    face = PolicyFace(lambda seen: rng.normal(size=(3, 2)), samples=4, hidden=lambda seen: [1.0, 2.0])
    output = face.answer(None, 0).output
    assert output.samples.shape == (5, 3, 2)
    assert np.allclose(output.samples[0], output.chunk, atol=1e-2)
    assert output.hidden.tolist() == [1.0, 2.0]
    with pytest.raises(FailsightError, match="gives no further samples"):
        PolicyFace(LeRobotLike(), calls="select_action", samples=2)


@pytest.mark.parametrize("raw", [{"act": 1}, {}, "left", None, np.zeros((2, 3, 4)), {"actions": [[1], [1, 2]]}])
def test_an_answer_that_is_none_is_one_sentence(raw):
    with pytest.raises(FailsightError, match="answer"):
        read_answer(raw)


def test_what_a_policy_is_told_reaches_it_or_stops_the_robot(bundle):
    from test_protector import Tells

    class Listens(OpenpiLike):
        def __init__(self):
            self.prompts = []

        def infer(self, obs):
            self.prompts.append(obs.get("prompt"))
            return super().infer(obs)

    policy = Listens()
    watched = failsight.watch(policy, bundle, rungs=[Tells()], fingerprint="OpenpiLike", execute=5, clock=None)
    watched.reset("home")
    for i in range(5):
        watched.step({"state": np.full(4, 0.1 * i + 0.1, np.float32), "prompt": "go home"})
    assert policy.prompts == ["go home", "come home"]
    deaf = failsight.watch(OpenpiLike(), bundle, rungs=[Tells()], execute=5, clock=None)
    deaf.reset("home")
    commands = [deaf.step({"state": np.full(4, 0.1 * i + 0.1, np.float32)}) for i in range(4)]
    assert "it can be told nothing" in commands[-1].why
    assert commands[-1].stop


def test_a_ladder_beside_the_bundle_acts_by_itself(tmp_path):
    from test_protector import entries

    from failsight.interventions.ladder_file import save_ladder

    folder = save(tmp_path / "bundle", policy="OpenpiLike", predictor=RecurrentPredictor(recurrent_arrays(hidden=8)))
    save_ladder(folder, entries(opened=True))
    watched = failsight.watch(OpenpiLike(), folder, execute=3, clock=None, record=tmp_path / "run")
    episode(watched, key(1), name="state")
    watched.close()
    assert Run(tmp_path / "run").meta.arm == "ladder"
    assert watched.command.decision.kind == "slow"
