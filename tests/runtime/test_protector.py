"""A protector says what the loop would have said, to the bit; whatever is brought to it wrong is a hold, said and counted."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import recurrent_arrays

from failsight.core.errors import BundleError, EpisodeDataError, FailsightError, SpecMismatchError, StorageError
from failsight.core.specs import Access, ActionSpec, Dimension, ObservationSpec, SignalColumn
from failsight.core.types import (
    CONTINUE,
    SILENT,
    Decision,
    DecisionKind,
    EpisodeKey,
    Outcome,
    Perturbation,
    PolicyOutput,
)
from failsight.interventions.gate import GateEntry
from failsight.interventions.guard import Guard
from failsight.interventions.ladder import Ladder
from failsight.interventions.ladder_file import LADDER, load_ladder, save_ladder
from failsight.interventions.limits import limits_from
from failsight.interventions.rungs import Retry, SafeStop, Slow, Takeover
from failsight.monitor.bundle import Bundle, load_monitor, save_bundle
from failsight.monitor.calibration import Calibration
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.runtime.loop import Loop
from failsight.runtime.protector import Protector
from failsight.testing import fakes

KEY = EpisodeKey(seed=3, task="home", episode=2, perturbations=Perturbation.parse("wind:3"))
HOLD = [0.0, 0.0, 0.0, -1.0]


def save(folder, threshold=0.0, rate_hz=20.0, **more):
    actions = ActionSpec(dimensions=fakes.ACTIONS.dimensions, frame="world", rate_hz=rate_hz, gripper_closed_sign=1)
    predictor = RecurrentPredictor(recurrent_arrays(hidden=8))
    whole = {
        "predictor": predictor,
        "rule": TriggerRule(needed=2, window=3),
        "thresholds": Thresholds(pooled=Calibration(threshold=threshold, alpha=0.1, successes=20, alpha_upper=0.2)),
        "action_spec": actions,
        "observation_spec": fakes.OBSERVATIONS,
        "policy": "point",
        "provenance": {},
    }
    save_bundle(folder, Bundle(**whole | more))
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save(tmp_path_factory.mktemp("protector") / "bundle")


def person(observation):
    at = observation["observation.state"][:3]
    return np.array([*(-at / max(np.linalg.norm(at), 1e-6)), -1.0], np.float32)


class Homing:
    def act(self, sim):
        return person(sim.observe())


def looped(bundle, intervention, operator=None):
    """An episode of the loop, and what a recording of it holds: states, and outputs at the steps of an inference."""

    class Keeper:
        name, wants_images = "keeper", False

        def __init__(self):
            self.ticks = []

        def observe(self, tick):
            self.ticks.append(tick)

    keeper = Keeper()
    loop = Loop(
        fakes.PointSim(),
        fakes.PointPolicy(),
        monitor=load_monitor(bundle),
        intervention=intervention,
        operator=operator,
        observers=[keeper],
    )
    loop.start(KEY)
    loop.run()
    return loop, keeper.ticks


MAKES = {
    "watch": lambda: None,
    "slow": Slow,
    "retry": Retry,
    "stop": SafeStop,
    "takeover": Takeover,
    "ladder": lambda: Ladder({"slow": Slow(), "retry": Retry()}, ["slow", "retry"], None, patience_s=0.3),
}


@pytest.mark.parametrize("name", MAKES)
def test_a_protector_fed_by_a_recording_says_what_the_loop_said_to_the_bit(bundle, name):
    make = MAKES[name]
    loop, ticks = looped(bundle, make(), Homing())
    rungs = [made] if (made := make()) is not None else []
    protector = Protector(bundle, rungs=rungs, execute=fakes.PointPolicy.execute, person=person, clock=None)
    protector.start("home", "go home", horizon=fakes.HORIZON)
    for tick in ticks:
        assert protector.due == tick.step.replan
        seen = {"observation.state": tick.step.state}
        command = protector.step(seen, tick.step.output if tick.step.replan else None)
        assert repr(command.verdict) == repr(tick.verdict)
        assert repr(command.decision) == repr(tick.decision)
        if tick.action is None:
            assert command.stop
            assert command.action.tolist() == loop._hold.tolist()
        else:
            assert not command.stop
            assert command.action.tobytes() == tick.action.tobytes()
            assert command.driver == tick.driver
    trace = protector.end(success=loop.trace.outcome == Outcome.SUCCESS)
    assert trace.rows == loop.trace.rows
    assert trace.outcome == loop.trace.outcome
    assert name == "watch" or len(set(trace.kinds)) > 1, "the rung must have acted"


def begun(bundle=None, **more):
    if bundle is None:
        more |= {"actions": fakes.ACTIONS, "observations": fakes.OBSERVATIONS}
    protector = Protector(bundle, **{"clock": None, "rungs": []} | more)
    protector.start("home")
    return protector


STATE = np.array([0.5, 0.2, 0.1, 1.0], np.float32)
CHUNK = np.tile(np.array([0.1, 0.2, 0.3, -1.0], np.float32), (8, 1))


def full(state=STATE):
    samples = np.stack([CHUNK + 0.01 * i for i in range(4)])
    return PolicyOutput(chunk=CHUNK, hidden=np.ones(8), samples=samples)


def drive(protector, ticks=4, **more):
    first = protector.step(STATE, full(), **more)
    return [first, *(protector.step(STATE + 0.01 * (i + 1)) for i in range(ticks - 1))]


def test_a_plain_policy_is_guarded_without_a_bundle():
    protector = begun()
    wild = np.array([5.0, 0.0, 0.0, 1.0], np.float32)
    command = protector.step({"observation.state": STATE}, wild)
    assert command.action.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert "clipped: dx" in command.why
    assert protector.due, "one action is one chunk"
    held = protector.step(STATE, np.full(4, np.nan, np.float32))
    assert held.action.tolist() == [0.0, 0.0, 0.0, 1.0]
    assert not held.stop
    latched = protector.step(STATE, np.full(4, np.nan, np.float32))
    assert latched.stop
    assert "not finite, on 2 of the last 3 ticks" in latched.why
    with pytest.raises(FailsightError, match="latched"):
        Protector.start(protector, "home")
    protector.end(None)
    protector.release(by="Ada")
    protector.start("home")
    assert protector.step(STATE, wild).action[0] == 1.0


def test_no_output_where_one_is_due_is_a_hold_and_two_of_them_latch():
    protector = begun(execute=8)
    commands = [protector.step(STATE + 0.01 * i, full() if i == 0 else None) for i in range(10)]
    assert [c.driver for c in commands[:8]] == ["policy"] * 8
    assert "past the end of its chunk of 8" in commands[8].why
    assert commands[8].action.tolist() == HOLD
    assert commands[9].stop


class Tells:
    def reset(self):
        pass

    def propose(self, verdict, context):
        if context.step != 2:
            return CONTINUE
        return Decision(kind=DecisionKind.REINSTRUCT, reason="other words", instruction="come home")


def test_other_words_are_handed_on_and_held_until_the_policy_has_answered_them():
    protector = begun(rungs=[Tells()], execute=8)
    commands = drive(protector, 3)
    assert [c.instruction for c in commands] == ["", "", "come home"]
    assert commands[-1].action.tolist() == HOLD
    assert protector.due
    silent = protector.step(STATE)
    assert silent.action.tolist() == HOLD
    assert "has not inferred afresh" in silent.why
    assert protector.step(STATE, full()).action.tolist() == CHUNK[0].tolist()
    assert not protector.due


def test_a_chunk_without_actions_is_none():
    protector = begun()
    command = protector.step(STATE, PolicyOutput(chunk=np.zeros((0, 4), np.float32)))
    assert command.action.tolist() == HOLD
    assert "past the end of its chunk of 0 actions" in command.why
    assert protector.due


def test_no_output_at_the_first_tick_is_a_stop():
    stops = []
    protector = begun(stop=stops.append)
    command = protector.step(STATE)
    assert command.stop
    assert stops == ["policy: it gave no output at the first tick of the episode"]


def test_a_state_that_stays_nan_is_a_trigger(bundle):
    protector = begun(bundle)
    drive(protector, 2)
    bad = np.array([np.nan, 0, 0, 1], np.float32)
    commands = [protector.step(bad, full()) for _ in range(12)]
    assert commands[0].verdict.blind == "the state is not finite"
    assert not commands[0].verdict.trigger or commands[0].verdict.why
    assert commands[-1].verdict.trigger
    assert "blind for 12 ticks: the state is not finite" in commands[-1].why


@pytest.mark.parametrize(
    ("index", "says"), [(1, "step 1 came twice or too late: step 4 is due"), (3, "step 3 came tw")]
)
def test_a_tick_that_comes_twice_or_out_of_order_is_a_hold_that_counts_for_nothing(bundle, index, says):
    protector = begun(bundle)
    for i in range(4):
        protector.step(STATE + 0.01 * i, full() if i == 0 else None, index=i)
    again = protector.step(STATE, index=index)
    assert again.action.tolist() == HOLD
    assert again.driver == "hold"
    assert says in again.why
    assert again.verdict.blind
    following = protector.step(STATE + 0.05, index=4)
    assert following.action.tolist() == CHUNK[4].tolist(), "the chunk goes on where it stood"
    assert not following.verdict.blind
    assert protector.trace.rows[-1].step == index
    assert not protector.step(STATE + 0.06).verdict.blind, "the count goes on"


def test_what_is_seen_at_a_tick_of_the_past_is_not_where_the_robot_is():
    protector = begun()
    for i in range(3):
        protector.step(STATE + 0.01 * i, CHUNK, index=i)
    protector.step(STATE + 9, index=1)
    protector.step(STATE + 0.03, index=None)
    protector.step(STATE + 0.04, index=None)
    seen = [float(state[0]) for state in protector.trace.path]
    assert seen == pytest.approx([0.5, 0.51, 0.52, 0.52, 0.53])
    assert protector._loop.at.step == 4


def test_ticks_that_never_came_are_said(bundle):
    protector = begun(bundle)
    protector.step(STATE, full(), index=0)
    command = protector.step(STATE + 0.01, index=5)
    assert command.verdict.blind == "4 steps before step 5 are missing"


def test_a_repeated_tick_becomes_a_trigger(bundle):
    protector = begun(bundle)
    protector.step(STATE, full(), index=0)
    commands = [protector.step(STATE, index=0) for _ in range(10)]
    assert commands[-1].verdict.trigger


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 10.0

    def __call__(self):
        return self.now


def test_ticks_that_come_late_by_the_clock_are_said(bundle):
    clock = Clock()
    protector = begun(bundle, clock=clock)
    protector.step(STATE, full())
    clock.now += 0.05
    assert not protector.step(STATE + 0.01).verdict.blind
    clock.now += 0.85
    command = protector.step(STATE + 0.02)
    assert "its state came 0.850 s after the one before, due after 0.050 s" in command.why


def modes(protector, ticks, clock, tick_s=0.05, **more):
    """What the guard did at each of these ticks without an output."""
    found = []
    for i in range(ticks):
        clock.now += tick_s
        protector.step(STATE + 0.01 * (i + 1), **more)
        found.append(str(protector.guard.mode))
    return found


def test_a_policy_that_stays_silent_is_slowed_held_and_latched_by_its_own_interval():
    clock = Clock()
    protector = begun(execute=2, clock=clock)
    chunk = np.tile(CHUNK[:1], (200, 1))
    protector.step(STATE, chunk)
    found = modes(protector, 42, clock)
    # two actions of 0.05 s: due at the third tick, twice late 0.1 s after that, five times 0.4 s, twenty times 1.9 s
    assert found == ["moving"] * 3 + ["slowed"] * 6 + ["holding"] * 30 + ["latched"] * 3
    assert "policy 2.000 s, 20.0 times the 0.100 s expected" in protector.latched
    assert protector.step(STATE, chunk).stop


def test_one_and_the_same_observation_is_stale_and_latches_in_the_end(bundle):
    clock, stops = Clock(), []
    protector = begun(bundle, clock=clock, stop=stops.append, execute=2)
    protector.step(STATE, full(), index=0)
    found = modes(protector, 20, clock, index=0)
    assert found == ["moving"] + ["slowed"] * 3 + ["holding"] * 15 + ["latched"]
    assert "observation 1.000 s, 20.0 times the 0.050 s expected" in stops[0]


def test_an_observation_that_was_measured_long_ago_is_late_by_its_own_time():
    clock = Clock()
    protector = begun(clock=clock)
    assert not protector.step(STATE, CHUNK, time_s=100.0).guard
    clock.now += 0.05
    assert not protector.step(STATE, CHUNK, time_s=100.05).guard
    clock.now += 0.15
    assert "half speed: observation 0.100 s" in protector.step(STATE, CHUNK, time_s=100.1).guard


def test_times_that_jump_or_are_unknown_are_never_taken_for_on_time(bundle):
    clock = Clock()
    protector = begun(clock=clock)
    protector.step(STATE, CHUNK, time_s=5000.0)
    for _ in range(2):
        clock.now += 0.05
        held = protector.step(STATE, CHUNK, time_s=float("nan"))
    assert "half speed: observation 0.100 s" in held.guard, "nobody knows when it was measured"
    clock.now += 0.05
    assert "observation" in protector.step(STATE, CHUNK, time_s=1400.0).why, "stamps an hour back are an hour late"
    assert protector.latched
    back = begun(bundle, clock=clock)
    back.step(STATE, full())
    clock.now -= 3600
    command = back.step(STATE + 0.01)
    assert "its state is as old as the one before" in command.verdict.blind
    assert not command.stop


def test_a_camera_that_freezes_while_the_robot_moves_is_a_hold_until_its_picture_changes():
    clock, picture = Clock(), np.zeros((4, 4, 3), np.uint8)
    protector = begun(clock=clock, cameras=["front"])

    def tick(change, action=CHUNK):
        clock.now += 0.05
        picture[0] += change
        protector.step({"observation.state": STATE, "front": picture}, action)
        return str(protector.guard.mode)

    assert [tick(1) for _ in range(12)] == ["moving"] * 12, "one and the same array, filled anew"
    still = np.array([[0.0, 0.0, 0.0, -1.0]], np.float32)
    assert [tick(0, still) for _ in range(30)][1:] == ["moving"] * 29, "who stands still sees the same"
    found = [tick(0) for _ in range(110)]
    # one tick of its clock went by as the last motion ended, so 10 and 25 ticks are over at the tenth and the twenty-fifth
    assert (found.index("slowed"), found.index("holding")) == (9, 24)
    assert set(found[24:]) == {"holding"}, "a hold that lasts, though who holds sees the same"
    assert tick(1) == "moving"
    assert [tick(0) for _ in range(9)] == ["moving"] * 9
    protector.start("home")
    assert [tick(0) for _ in range(9)] == ["moving"] * 9, "a new episode begins with another first look"
    blind = begun(clock=clock, cameras=["front"])
    blind.step(STATE, CHUNK)
    clock.now += 0.6
    assert "half speed: camera front" in blind.step(STATE, CHUNK).guard, "a picture that never comes is none"


def test_a_guard_that_is_shared_keeps_its_own_limits():
    guard = Guard(fakes.ACTIONS, token="secret")
    first, second = begun(guard=guard), begun(guard=guard)
    first.step(STATE)
    with pytest.raises(FailsightError, match="latched"):
        second.start("home")
    with pytest.raises(FailsightError, match="its own limits and token"):
        begun(guard=guard, token="other")


def test_an_episode_that_was_not_ended_is_ended_by_the_next():
    told = []

    class Keeper:
        name, wants_images = "keeper", False

        def observe(self, tick):
            told.append(tick.over)

    protector = begun(observers=[Keeper()])
    drive(protector, 3)
    protector.start("home")
    assert told == [False, False, True]


class Ponders:
    """A monitor that takes its time."""

    def __init__(self, clock, took_s):
        self._clock, self.took_s = clock, took_s

    def reset(self, task):
        pass

    def step(self, record):
        self._clock.now += self.took_s
        return SILENT

    def save_state(self):
        return {}

    def load_state(self, state):
        pass


@pytest.mark.parametrize(("took_s", "mode"), [(0.09, "moving"), (0.11, "slowed"), (0.26, "holding"), (1.1, "latched")])
def test_a_monitor_that_misses_its_deadline_slows_holds_and_stops(took_s, mode):
    clock = Clock()
    specs = {"actions": fakes.ACTIONS, "observations": fakes.OBSERVATIONS}
    protector = Protector(Ponders(clock, took_s), rungs=[], clock=clock, **specs)
    protector.start("home")
    command = protector.step(STATE, CHUNK)
    assert protector.guard.mode == mode
    assert command.stop is (mode == "latched")


def test_a_loop_keeps_the_workspace_of_its_guard_too():
    free = limits_from([(np.tile(STATE, (5, 1)), CHUNK[:5])], fakes.ACTIONS, fakes.OBSERVATIONS, 1.0)
    start = fakes.PointSim().reset(options={"key": KEY})[0]["observation.state"]
    wall = 0.5 * float(start[0])
    space = {"x_m": (wall, 3.0) if wall > 0 else (-3.0, wall)}
    caps = replace(free.caps, velocity=np.full(4, np.inf), acceleration=np.full(4, np.inf))
    guard = Guard(fakes.ACTIONS, replace(free, caps=caps, workspace=space), fakes.OBSERVATIONS)
    still = replace(KEY, perturbations=())
    loop = Loop(fakes.PointSim(), fakes.PointPolicy(), guard=guard)
    loop.start(still)
    loop.run()
    x = np.array([state[0] for state in loop.trace.path])
    assert np.abs(x).min() == pytest.approx(abs(wall), abs=1e-6), "up to the wall and no further"
    assert "limited: dx" in loop.trace.rows[-1].guard


def test_limits_hold_for_rungs_and_people_too(tmp_path):
    limits = limits_from([(np.tile(STATE, (5, 1)), 0.1 * CHUNK[:5])], fakes.ACTIONS, fakes.OBSERVATIONS, 1.0)
    limits.write(tmp_path / "limits.json")
    protector = begun(limits=tmp_path / "limits.json", token="secret")
    command = protector.step(STATE, CHUNK)
    assert command.action.tolist()[3] == -1.0
    assert (np.abs(command.action[:3]) <= [0.01, 0.02, 0.03]).all()
    assert "limited: " in command.why
    drive(protector, 1)
    protector.step(None)
    protector.end(None)
    with pytest.raises(FailsightError, match="wrong token"):
        protector.release("Ada")
    protector.release("Ada", "secret")
    protector.start("home")


@pytest.mark.parametrize(
    ("observation", "output", "says"),
    [
        (STATE[:2], None, r"caller: observation.state: expected shape \(4\), found \(2,\)"),
        ({"state": STATE}, None, "caller: the observation has no observation.state; it should hold x_m, y_m"),
        (STATE, "left", "caller: the policy's output: expected numbers"),
        (STATE, np.zeros((3, 2)), "policy: its chunk has 2 columns for the 4 action dimensions"),
        (None, None, "caller: observation.state"),
    ],
)
def test_whatever_is_brought_wrong_is_a_hold_a_stop_and_a_latch(observation, output, says):
    stops = []
    protector = begun(stop=stops.append)
    drive(protector, 2)
    command = protector.step(observation, output)
    assert command.stop
    assert command.action.tolist() == HOLD
    with pytest.raises(FailsightError, match=says):
        raise FailsightError(stops[0])
    assert protector.trace.outcome == Outcome.ERRORED
    assert protector.step(STATE, full()).stop, "nothing moves any more"


def test_what_cannot_be_begun_is_raised_before_anything_moves():
    protector = begun()
    with pytest.raises(EpisodeDataError, match="expected shape"):
        protector.step(STATE[:2], full())
    with pytest.raises(FailsightError, match=r"call start\(TASK\) first"):
        Protector(None, actions=fakes.ACTIONS, observations=fakes.OBSERVATIONS).step(STATE, full())


def test_a_callback_or_an_observer_that_breaks_stops_the_robot(bundle):
    def raises(command):
        raise RuntimeError("pager out")

    protector = begun(bundle, on_alarm=raises)
    commands = drive(protector, 3)
    assert commands[-1].stop
    assert "on_alarm: RuntimeError: pager out" in commands[-1].why

    class Full:
        name, wants_images = "recorder", False

        def observe(self, tick):
            raise StorageError("disk full")

    assert drive(begun(bundle, observers=[Full()]), 2)[-1].why == "recorder: disk full"


def test_the_alarm_is_told_once_while_it_is_on(bundle):
    told = []
    protector = begun(bundle, on_alarm=told.append)
    commands = drive(protector, 6)
    assert len(told) == 1
    assert told[0] is next(c for c in commands if c.verdict.trigger)


def test_a_rung_that_needs_a_person_holds_without_one_and_says_so(bundle):
    command = drive(begun(bundle, rungs=["takeover"]), 4)[-1]
    assert command.action.tolist() == HOLD
    assert not command.stop
    assert "person called: " in command.why
    assert "no person is there: holding" in command.why
    calls = []
    protector = begun(bundle, rungs=["takeover"], person=lambda seen: calls.append(seen) or np.zeros(4, np.float32))
    assert drive(protector, 4)[-1].driver == "operator"
    assert set(calls[-1]) == {"observation.state"}


def test_another_policy_stands_in_where_there_is_one(bundle):
    with pytest.raises(FailsightError, match="another policy"):
        begun(bundle, rungs=["fallback"])
    protector = begun(bundle, rungs=["fallback"], fallback=fakes.PointPolicy())
    commands = [protector.step(STATE + 0.01 * i, full()) for i in range(4)]
    first = next(i for i, command in enumerate(commands) if command.driver == "fallback")
    chunk = fakes.PointPolicy().infer({"observation.state": STATE + 0.01 * first}, first).chunk
    assert np.allclose(commands[first].action, chunk[0], atol=1e-5)
    silent = protector.step(STATE + 0.05)
    assert silent.driver == "fallback", "who stands in needs no answer of the policy"


class Broken:
    def reset(self):
        pass

    def propose(self, verdict, context):
        if context.step < 2:
            return CONTINUE
        return Decision(kind=DecisionKind.BACKTRACK, reason="back", action=np.full(4, np.inf, np.float32))


def test_a_rung_that_sends_nonsense_never_reaches_the_robot(bundle):
    commands = drive(begun(bundle, rungs=[Broken()]), 4)
    assert [c.stop for c in commands] == [False, False, False, True]
    assert all(np.isfinite(c.action).all() for c in commands)


JOINTS = ActionSpec(
    dimensions=(Dimension(name="j0", kind="absolute", unit="rad"),), frame="joint", rate_hz=20.0, gripper_closed_sign=1
)


def refused(tmp_path, **more):
    return Protector(save(tmp_path / "b", **{k: more.pop(k) for k in ("rate_hz",) if k in more}), **more)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"rate_hz": 0.0}, "rate_hz is 0"),
        ({"actions": JOINTS}, "Action specs of robot and bundle differ"),
        (
            {"observations": ObservationSpec(state=("y_m", "x_m", "z_m", "gripper_open01"), cameras=())},
            "States of robot",
        ),
        ({"policy": "other"}, "fitted on policy point, this one is other"),
        ({"rungs": ["retri"]}, "Did you mean retry"),
        ({"rungs": ["ladder"]}, "no rung by itself"),
        ({"rungs": "slow"}, r"write \['slow'\]"),
    ],
)
def test_what_cannot_work_is_refused_at_construction(tmp_path, more, says):
    with pytest.raises(FailsightError, match=says):
        refused(tmp_path, **more)


def test_rungs_unfit_for_the_robot_and_joints_that_nobody_measures_are_refused():
    seen = ObservationSpec(state=("j0",), cameras=())
    with pytest.raises(SpecMismatchError, match="Retry backtracks along the tool's path and needs"):
        Protector(None, actions=JOINTS, observations=seen, rungs=["retry"])
    with pytest.raises(SpecMismatchError, match="'j0'"):
        Protector(None, actions=JOINTS, observations=ObservationSpec(state=("q",), cameras=()))
    with pytest.raises(SpecMismatchError, match="say what actions and state mean"):
        Protector(None)


def test_a_bundle_that_reads_hidden_states_is_refused_without_them(bundle):
    protector = begun(bundle)
    with pytest.raises(BundleError, match=r"level hidden: the policy's hidden state.*Given: actions, proprioception"):
        protector.step(STATE, CHUNK)
    with pytest.raises(BundleError, match="hidden states of 8, the policy's has 3"):
        protector.step(STATE, PolicyOutput(chunk=CHUNK, hidden=np.ones(3)))
    assert protector.step(STATE, full()).action is not None, "nothing had moved"


def entries(*, opened):
    return [GateEntry(rung="slow", triggers=40, rescues=20 if opened else 0, harms=0)]


def test_the_ladder_of_a_bundle_is_climbed_and_that_of_another_refused(tmp_path):
    folder = save(tmp_path / "bundle")
    assert drive(begun(folder, rungs=None), 4)[-1].decision.kind == "continue"
    save_ladder(folder, entries(opened=False))
    assert drive(begun(folder, rungs=None), 4)[-1].decision.kind == "continue", "shut rungs stay shut"
    save_ladder(folder, entries(opened=True))
    assert load_ladder(folder) == tuple(entries(opened=True))
    assert drive(begun(folder, rungs=None), 4)[-1].decision.kind == "slow"
    assert drive(begun(folder, rungs=[]), 4)[-1].decision.kind == "continue", "watch only"
    save(tmp_path / "other", threshold=0.1)
    (tmp_path / "other" / LADDER).write_text((folder / LADDER).read_text())
    with pytest.raises(BundleError, match="proved on another bundle"):
        Protector(tmp_path / "other")


@pytest.mark.parametrize("text", ["[]", '{"bundle": 3}', '{"bundle": "x", "rungs": [{"rung": "slow"}]}', "{"])
def test_a_damaged_ladder_is_refused(tmp_path, text):
    folder = save(tmp_path / "bundle")
    (folder / LADDER).write_text(text)
    with pytest.raises(BundleError, match=r"ladder\.json"):
        Protector(folder)


def test_a_count_that_no_forks_give_opens_no_rung(tmp_path):
    folder = save(tmp_path / "bundle")
    path = save_ladder(folder, entries(opened=True))
    data = json.loads(path.read_text())
    data["rungs"][0]["rescues"] = 400
    path.write_text(json.dumps(data))
    with pytest.raises(BundleError, match="from 0 to 40"):
        Protector(folder)
    data["rungs"][0] |= {"rescues": 30, "harms": 20}
    path.write_text(json.dumps(data))
    with pytest.raises(BundleError, match="30 rescues and 20 harms in 40 triggers"):
        Protector(folder)
    save(folder)
    assert not path.exists(), "a new fit is another bundle"


def test_a_bundle_of_a_logs_own_signals_cannot_watch_anybody(tmp_path):
    columns = (SignalColumn(name="entropy", unit="nat", access=Access.ACTIONS),)
    with pytest.raises(BundleError, match="reads the signals of a log, which nobody computes while the robot moves"):
        Protector(save(tmp_path / "bundle", signals=columns))


def test_a_log_grows_by_what_happens_and_not_by_ticks(bundle):
    quiet = begun()
    drive(quiet, 8)
    quiet.end(True)
    assert len(quiet.events.lines) == 1, "that the policy drives is said once"
    slowed = begun(bundle, rungs=["slow"])
    drive(slowed, 8)
    slowed.end(True)
    changed = [line for line in slowed.events.lines if line["sent"] != line["planned"]]
    assert len(changed) == sum(kind == "slow" for kind in slowed.trace.kinds) >= 4, "every action that was changed"


def test_changes_are_logged_with_what_was_seen(bundle, tmp_path):
    protector = begun(bundle, rungs=["slow"], log=tmp_path / "log/events.jsonl")
    drive(protector, 6)
    protector.end(success=True)
    lines = [json.loads(line) for line in (tmp_path / "log/events.jsonl").read_text().splitlines()]
    assert lines == list(protector.events.lines)
    alarm = next(line for line in lines if line["decision"] == "slow")
    assert alarm["trigger"]
    assert alarm["reason"].startswith("half speed")
    assert np.allclose(alarm["sent"][:3], np.array(alarm["planned"][:3]) / 2)
    assert len(alarm["state"]) == 4


def test_an_ending_that_nobody_knows_is_neither_and_an_endless_episode_does_not_grow(bundle, monkeypatch):
    monkeypatch.setattr("failsight.runtime.pushed._KEPT_TICKS", 50)
    protector = begun(bundle)
    drive(protector, 2)
    for i in range(200):
        protector.step(STATE + 0.001 * i, full())
    assert len(protector.trace.rows) <= 50
    assert len(protector.trace.path) <= 50
    assert protector.end(success=None).outcome == Outcome.UNKNOWN
