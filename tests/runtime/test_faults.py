"""The loop's fault table: who breaks, how, and what the robot is sent, how the episode ends, what is latched and kept."""

import time
from functools import partial

import numpy as np
import pytest
from conftest import recurrent_arrays

from failsight.core.errors import FailsightError, SpecMismatchError, StorageError
from failsight.core.specs import ActionSpec, Dimension
from failsight.core.types import Decision, DecisionKind, EpisodeKey, Outcome, PolicyOutput, Risk, Verdict
from failsight.episodes.run import Run
from failsight.episodes.verdicts import read_verdicts
from failsight.evaluation.scoring import replay
from failsight.interventions.guard import Guard
from failsight.interventions.rungs import SafeStop, Takeover
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.runtime.bench import Bench
from failsight.runtime.collect import collect, record_episode
from failsight.runtime.loop import Loop
from failsight.runtime.robot import SimRobot
from failsight.testing import fakes

KEY = EpisodeKey(seed=3, task="home", episode=1)
HOLD = [0.0, 0.0, 0.0, -1.0]
AT = 4


class Robot(SimRobot):
    """Remembers every command; breaks on demand."""

    def __init__(self, sim, broken=""):
        super().__init__(sim)
        self.sent, self.stops, self._broken = [], [], broken

    def send(self, action):
        self.sent.append(np.round(action, 3).tolist())
        if self._broken == "send" and self.ticks >= AT:
            raise OSError("cable out")
        super().send(action)
        if self._broken == "nan state" and self.ticks >= AT:
            self.result[0]["observation.state"] = np.full(4, np.nan, np.float32)

    def observe(self):
        if self._broken == "observe" and self.ticks >= AT:
            raise OSError("camera out")
        return super().observe()

    def stop(self, reason):
        self.stops.append(reason)
        if self._broken == "stop":
            raise OSError("stop line out")
        super().stop(reason)


class Policy(fakes.PointPolicy):
    def __init__(self, fault=""):
        super().__init__()
        self._fault = fault
        if fault == "past chunk":
            self.execute = 9

    def infer(self, observation, step):
        output = super().infer(observation, step)
        if step < AT - 1:
            return output
        if self._fault == "raise":
            raise RuntimeError("policy broke")
        if self._fault == "hang":
            time.sleep(3)
        if self._fault == "nan":
            return PolicyOutput(chunk=np.full_like(output.chunk, np.nan), hidden=output.hidden, samples=output.samples)
        if self._fault == "shape":
            return PolicyOutput(chunk=output.chunk[:, :2])
        return output


def verdict(trigger=False):
    return Verdict(risk=Risk(p_fail=0.1), threshold=0.5, margin=-0.4, trigger=trigger, why="test" if trigger else "")


class Monitor:
    """Triggers from step `AT` on when told to."""

    def __init__(self, fault=""):
        self._fault, self.told = fault, []

    def reset(self, task):
        pass

    def step(self, record):
        if self._fault == "raise" and record.index >= AT:
            raise RuntimeError("monitor broke")
        if self._fault == "hang" and record.index >= AT:
            time.sleep(3)
        return verdict(self._fault == "trigger" and record.index >= AT)

    def finish(self, success, *, censored=False):
        self.told.append((success, censored))

    def save_state(self):
        return {}

    def load_state(self, state):
        pass


class Acts:
    """An intervention with a fault."""

    def __init__(self, fault=""):
        self._fault = fault

    def reset(self):
        pass

    def propose(self, verdict, context):
        if context.step < AT:
            return Decision(kind=DecisionKind.CONTINUE, reason="")
        if self._fault == "raise":
            raise RuntimeError("ladder broke")
        if self._fault == "hang":
            time.sleep(3)
        value = np.full(4, np.nan, np.float32) if self._fault == "nan" else np.zeros((4, 1), np.float32)
        return Decision(kind=DecisionKind.BACKTRACK, reason="back", action=value)


class Person:
    """An operator with a fault."""

    def __init__(self, fault=""):
        self._fault = fault

    def act(self, sim):
        if self._fault == "raise":
            raise RuntimeError("joystick broke")
        if self._fault == "hang":
            time.sleep(3)
        if self._fault == "nan":
            return np.full(4, np.nan, np.float32)
        at = sim.observe()["observation.state"][:3]
        return np.array([*(-at / max(np.linalg.norm(at), 1e-6)), -1.0], np.float32)


def drive(policy="", monitor="", acts=None, person=None, robot="", deadline_s=None):
    sim = fakes.PointSim()
    loop = Loop(
        sim,
        Policy(policy),
        monitor=Monitor(monitor),
        intervention=acts,
        operator=person,
        robot=Robot(sim, robot),
        deadline_s=deadline_s,
    )
    loop.start(KEY)
    loop.run()
    return loop


HANDED = {"monitor": "trigger", "acts": Takeover()}
LATE = {"deadline_s": 0.2}
TABLE = [
    ("policy", "raise", {"policy": "raise"}, "policy: RuntimeError: policy broke"),
    ("policy", "hang", {"policy": "hang", **LATE}, "policy: no answer from the policy within 0.2 s"),
    ("policy", "nan", {"policy": "nan"}, "the action is not finite, on 2 of the last 3 ticks"),
    ("policy", "shape", {"policy": "shape"}, "policy: its chunk has 2 columns for the 4 action dimensions"),
    ("policy", "past chunk", {"policy": "past chunk"}, "past the end of its chunk of 5 actions, on 2 of the last"),
    ("monitor", "raise", {"monitor": "raise"}, "monitor: RuntimeError: monitor broke"),
    ("monitor", "hang", {"monitor": "hang", **LATE}, "monitor: no answer from the monitor within 0.2 s"),
    ("intervention", "raise", {"acts": Acts("raise")}, "intervention: RuntimeError: ladder broke"),
    ("intervention", "hang", {"acts": Acts("hang"), **LATE}, "intervention: no answer"),
    ("intervention", "nan", {"acts": Acts("nan")}, "the action is not finite, on 2 of the last"),
    ("intervention", "shape", {"acts": Acts("shape")}, "the action has shape (4, 1) instead of (4,), on 2 of"),
    ("operator", "raise", {**HANDED, "person": Person("raise")}, "operator: RuntimeError: joystick broke"),
    ("operator", "hang", {**HANDED, "person": Person("hang"), **LATE}, "operator: no answer from the operator"),
    ("operator", "nan", {**HANDED, "person": Person("nan")}, "the action is not finite, on 2 of the last"),
    ("robot", "observe raises", {"robot": "observe"}, "robot: OSError: camera out"),
    ("robot", "send raises", {"robot": "send"}, "robot: OSError: cable out"),
]


@pytest.mark.parametrize(("who", "what", "faults", "reason"), TABLE, ids=[f"{row[0]}-{row[1]}" for row in TABLE])
def test_whatever_breaks_is_a_hold_a_stop_and_a_latch(who, what, faults, reason):
    began = time.monotonic()
    loop = drive(**faults)
    assert time.monotonic() - began < 2.5, "a hang is given up at the deadline"
    assert loop.trace.outcome == Outcome.ERRORED
    assert reason in loop.trace.error
    assert loop.robot.sent[-1] == HOLD, "the last command in force is a hold"
    assert np.isfinite(loop.robot.sent).all()
    assert loop.robot.stops == [loop.trace.error]
    assert loop._guard.latched
    assert loop._guard.reason == loop.trace.error
    last = loop.trace.rows[-1]
    assert "latched: " in last.guard
    assert ("hold not sent (cable out), stop sent" if what == "send raises" else "hold sent, stop sent") in last.guard
    assert loop.monitor.told == [(False, True)], "the monitor is told that nobody knows how it would have ended"


def test_stop_sends_a_stop_command_before_the_episode_ends_and_latches_nothing():
    loop = drive(monitor="trigger", acts=SafeStop())
    assert loop.trace.outcome == Outcome.STOPPED
    assert loop.robot.stops == ["stop requested: test"]
    assert not loop._guard.latched
    assert loop.trace.rows[-1].decision == "stop"
    assert loop.trace.rows[-1].guard == "stop sent"
    assert loop.monitor.told == [(False, True)]


def test_a_stop_command_that_fails_is_said_and_errored():
    loop = drive(monitor="trigger", acts=SafeStop(), robot="stop")
    assert loop.trace.outcome == Outcome.ERRORED
    assert "stop not sent (stop line out)" in loop.trace.rows[-1].guard
    assert loop._guard.latched


def test_a_good_episode_is_told_to_the_monitor_as_it_was():
    loop = drive()
    assert loop.trace.outcome == Outcome.SUCCESS
    assert loop.monitor.told == [(True, False)]
    assert not loop.robot.stops
    taken = drive(person=Person(), **HANDED)
    assert taken.trace.outcome == Outcome.SUCCESS
    assert taken.monitor.told == [(True, True)], "a person finished it"


def test_while_a_person_drives_the_policys_nan_does_not_count():
    loop = drive(policy="nan", monitor="trigger", acts=Takeover(), person=Person())
    held = [row for row in loop.trace.rows if "held" in row.guard]
    assert loop.trace.outcome == Outcome.SUCCESS
    assert [row.step for row in held] == [3], "only the tick before the person took over"


class Flickering(fakes.PointPolicy):
    """NaN on two ticks of three."""

    execute = 1

    def infer(self, observation, step):
        output = super().infer(observation, step)
        return output if step % 3 == 0 else PolicyOutput(chunk=np.full_like(output.chunk, np.nan))


def test_nan_on_two_ticks_of_three_latches():
    loop = Loop(fakes.PointSim(), Flickering())
    loop.start(KEY)
    loop.run()
    assert (loop.trace.outcome, loop.at.step) == (Outcome.ERRORED, 2)


@pytest.mark.parametrize("at", [3, 4])
def test_a_fork_of_a_policy_that_turns_nan_equals_the_whole_arm(at):
    """The guard's count is in the snapshot: saved after one bad tick, the next one latches, as it did in the whole."""
    whole = drive(policy="nan")
    sim = fakes.PointSim()
    loop = Loop(sim, Policy("nan"), monitor=Monitor(), robot=Robot(sim))
    loop.start(KEY)
    snapshot = loop.save(loop.run(until=lambda step, verdict: step.index == at))
    loop.act(*snapshot.pending)
    loop.run()
    assert loop._guard.latched
    loop.resume(snapshot, None)
    assert loop.trace.kinds == whole.trace.kinds
    assert loop.trace.rows == whole.trace.rows
    assert loop.trace.outcome == whole.trace.outcome
    assert len(loop.monitor.told) == 1, "a fork's end is not told again"


def test_the_latch_outlives_the_episode_until_somebody_releases_it():
    sim = fakes.PointSim()
    guard = Guard(sim.action_spec)
    loop = Loop(sim, Policy("raise"), guard=guard)
    loop.start(KEY)
    loop.run()
    with pytest.raises(
        FailsightError, match=r"latched \(policy: RuntimeError: policy broke\); release it with release"
    ):
        loop.start(KEY)
    again = Loop(sim, fakes.PointPolicy(), guard=guard)
    with pytest.raises(FailsightError, match="latched"):
        again.start(KEY)
    loop.release(by="Ada")
    assert loop.trace.rows[-1].guard == "released by Ada"
    again.start(KEY)
    again.run()
    assert again.trace.outcome == Outcome.SUCCESS


def test_an_interrupt_stops_the_robot_and_goes_on_up():
    class Interrupted(Policy):
        def infer(self, observation, step):
            if step >= AT - 1:
                raise KeyboardInterrupt
            return super().infer(observation, step)

    sim = fakes.PointSim()
    loop = Loop(sim, Interrupted(), robot=Robot(sim))
    loop.start(KEY)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert loop.robot.sent[-1] == HOLD
    assert loop.robot.stops == ["policy: KeyboardInterrupt"]
    assert (loop.trace.outcome, loop._guard.latched) == (Outcome.ERRORED, True)


def test_a_reset_that_breaks_sends_a_stop_and_latches():
    class Bad(fakes.PointPolicy):
        def reset(self, task, key):
            raise RuntimeError("no weights")

    sim = fakes.PointSim()
    loop = Loop(sim, Bad(), robot=Robot(sim))
    with pytest.raises(RuntimeError, match="no weights"):
        loop.start(KEY)
    assert loop.robot.sent == []
    assert loop.robot.stops == ["policy: RuntimeError: no weights"]
    assert loop._guard.latched


def test_a_full_disk_stops_the_robot_too():
    class Full:
        name, wants_images = "recorder", False

        def observe(self, tick):
            raise StorageError("disk full")

    sim = fakes.PointSim()
    loop = Loop(sim, fakes.PointPolicy(), observers=[Full()], robot=Robot(sim))
    loop.start(KEY)
    with pytest.raises(StorageError):
        loop.run()
    assert loop.robot.sent[-1] == HOLD
    assert loop._guard.latched


JOINTS = ActionSpec(
    dimensions=tuple(Dimension(name=f"j{i}", kind="absolute", unit="rad", low=-3.1, high=3.1) for i in range(3)),
    frame="joint",
    rate_hz=20.0,
    gripper_closed_sign=1,
)


def arm(observations, state):
    """A simulator of an arm at rest, and a policy for it that is NaN from the start."""

    class Arm(fakes.PointSim):
        action_spec, observation_spec = JOINTS, observations

        def _state(self):
            return np.array(state, np.float32)

    class Lost(fakes.PointPolicy):
        action_spec, observation_spec = JOINTS, observations

        def infer(self, observation, step):
            return PolicyOutput(chunk=np.full((5, 3), np.nan, np.float32))

    sim = Arm()
    return Loop(sim, Lost(), robot=Robot(sim))


def test_a_hold_of_absolute_joints_is_where_they_were_measured():
    observations = fakes.ObservationSpec(state=("j2", "j0_rad", "j1"), cameras=())
    loop = arm(observations, (0.3, 1.1, -0.7))
    loop.start(KEY)
    loop.run()
    assert np.allclose(loop.robot.sent, [[1.1, -0.7, 0.3]] * 2, atol=1e-6), "by name, not by position"


def test_absolute_joints_that_nobody_measures_refuse_to_start():
    with pytest.raises(SpecMismatchError, match="'j0'"):
        arm(fakes.OBSERVATIONS, (0.0, 0.0, 0.0, 1.0))


def test_a_state_that_is_nan_at_the_start_moves_nothing():
    loop = arm(fakes.ObservationSpec(state=("j0", "j1", "j2"), cameras=()), (0.3, np.nan, 0.0))
    with pytest.raises(FailsightError, match="measured at the start is not finite"):
        loop.start(KEY)
    assert loop.robot.sent == []


def bundle_monitor(threshold=2.0):
    predictor = RecurrentPredictor(recurrent_arrays(hidden=8))
    monitor = fakes.make_monitor(predictor, TriggerRule(needed=2, window=3), threshold)
    monitor.fingerprint = "bundle-7"
    return monitor


def collected(tmp_path, fault, episodes=1):
    from test_collect import make_meta

    def build():
        return Bench(fakes.PointSim(), Policy(fault), monitor=bundle_monitor())

    meta = make_meta(episodes)
    meta.write(tmp_path / "meta/failsight/run.json")
    bench = build()
    metas = [record_episode(tmp_path, 0.0, bench, ticket) for ticket in enumerate(meta.plan)]
    for _ in collect(tmp_path, meta, build, 1, resume=True):
        pass
    return metas


def test_collect_records_errored_releases_the_latch_and_keeps_every_row(tmp_path):
    metas = collected(tmp_path, "nan", 2)
    assert [m.outcome for m in metas] == [Outcome.ERRORED] * 2, "the second episode starts unlatched"
    assert "not finite, on 2 of the last 3 ticks" in metas[0].error
    (judge, frame), *rest = read_verdicts(tmp_path).items()
    assert not rest
    assert (judge.bundle, judge.policy) == ("bundle-7", "point")
    first = frame[frame["ticket"] == 0]
    assert first["step"].tolist() == [0, 1, 2, 3, 4, 4]
    assert first["time_s"].tolist()[:4] == pytest.approx([0.0, 0.05, 0.1, 0.15])
    assert first["guard"].iloc[-1] == "released by simulator reset"
    assert "held: the action is not finite" in first["guard"].iloc[3]
    assert (first["threshold"].iloc[:3] == 2.0).all()
    episode = next(Run(tmp_path).read([0]))
    assert len(episode.states) == metas[0].length == 4


def broken_bench():
    return Bench(fakes.PointSim(), Policy("raise"))


def test_five_errored_in_a_row_end_the_run(tmp_path):
    from test_collect import make_meta

    done = []
    with pytest.raises(FailsightError, match=r"5 episodes in a row errored.*policy broke"):
        done.extend(collect(tmp_path, make_meta(12), partial(broken_bench), 1))
    assert "policy broke" in next(iter(sorted(tmp_path.rglob("episode.json")))).read_text()


def test_replaying_a_recorded_episode_gives_the_stored_verdicts_to_the_bit(tmp_path):
    metas = collected(tmp_path, "", 2)
    assert [m.outcome for m in metas] == [Outcome.SUCCESS] * 2
    (_, frame), *_ = read_verdicts(tmp_path).items()
    monitor = bundle_monitor()
    for episode in Run(tmp_path).read():
        stored = frame[frame["ticket"] == episode.meta.ticket]
        again = replay(monitor, episode)
        assert stored["p_fail"].tolist() == [v.risk.p_fail for v in again]
        assert stored["margin"].tolist() == [v.margin for v in again]
        assert stored["blind"].tolist() == [v.blind for v in again] == [""] * len(again)
