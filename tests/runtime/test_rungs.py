"""What every rung sends, by hand, and what it says of a robot that it cannot help."""

from dataclasses import replace

import numpy as np
import pytest
from test_decisions import ARM, Says, Steady, x_of
from test_faults import Robot

from failsight.core.contracts import Context
from failsight.core.errors import EpisodeDataError, FailsightError, SpecMismatchError
from failsight.core.specs import Dimension, with_look
from failsight.core.types import Decision, DecisionKind, EpisodeKey, Limits, PolicyOutput, Risk, Verdict
from failsight.interventions.arms import ARMS, DEFAULT_ARMS, find_arm
from failsight.interventions.fitness import require_robot
from failsight.interventions.gate import GateEntry
from failsight.interventions.rungs import (
    Backtrack,
    Fallback,
    Limit,
    RegainView,
    Reinstruct,
    Replan,
    Resample,
    conservative,
    limits_of,
)
from failsight.runtime.loop import Loop
from failsight.testing import fakes
from failsight.workflows.collect import CollectOptions, require_live
from failsight.workflows.wiring import make_sim

KEY = EpisodeKey(seed=3, task="home", episode=1)
QUIET = Verdict(risk=Risk(p_fail=0.1), threshold=0.5, margin=-0.4, trigger=False, why="")
ALARM = replace(QUIET, risk=Risk(p_fail=0.9), margin=0.4, trigger=True, why="test")


class Alarms:
    """The trigger is on at these steps."""

    def __init__(self, *at):
        self._at = at

    def reset(self, task):
        pass

    def step(self, record):
        return ALARM if record.index in self._at else QUIET

    def save_state(self):
        return {}

    def load_state(self, state):
        pass


class Drawing(Steady):
    """Plans as `Steady` does, and draws three chunks: 0.1, 0.3 and 0.9 along x."""

    execute = 5

    def infer(self, observation, step):
        output = super().infer(observation, step)
        samples = np.zeros((3, 5, 4), np.float32)
        samples[:, :, 0], samples[:, :, 3] = np.array([[0.1], [0.3], [0.9]]), -1.0
        return PolicyOutput(chunk=output.chunk, hidden=output.hidden, samples=samples)


def drive(rung, *alarms, policy=None, ticks=8):
    sim, policy = fakes.PointSim(), policy or Steady()
    loop = Loop(sim, policy, monitor=Alarms(*alarms), intervention=rung, robot=Robot(sim))
    loop.start(KEY)
    loop.run(until=lambda step, verdict: step.index == ticks)
    assert not loop.trace.error
    assert {command[3] for command in loop.robot.sent} == {-1.0}, "the gripper stays as planned"
    return loop


def caps(velocity, acceleration=np.inf):
    return Limits(velocity=np.full(4, velocity), acceleration=np.full(4, acceleration))


def test_a_limit_caps_from_the_trigger_until_it_has_been_off_for_a_while():
    loop = drive(Limit(caps(0.15), dwell_s=0.1), 1)
    assert x_of(loop) == [0.1, 0.15, 0.1, 0.2] + [0.1, 0.2] * 2, "two ticks, at step 1 and 2"
    assert [row.decision for row in loop.trace.rows[:4]] == ["continue", "limit", "limit", "continue"]
    half = Limit().propose(ALARM, context())
    assert half.limits.velocity.tolist() == [0.5] * 4, "half of the largest command"
    assert half.limits.acceleration.tolist() == [0.25] * 4


def test_conservative_looks_every_two_actions_and_gives_the_horizon_back():
    loop = drive(conservative(), 1, policy=Drawing(), ticks=28)
    assert [step for step, _ in loop.policy.inferred][:12] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 25]
    assert x_of(loop)[20:25] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_caps_are_quantiles_of_what_was_commanded():
    """0, 1, 3 as values: velocities 1 and 3, acceleration 2; as targets: velocities 1 and 2, acceleration 1."""
    actions = np.zeros((3, 5), np.float32)
    actions[:, 0] = actions[:, 1] = [0.0, 1.0, 3.0]
    limits = limits_of([actions], ARM, quantile=1.0)
    assert limits.velocity[:2].tolist() == [2.0, 3.0]
    assert limits.acceleration[:2].tolist() == [1.0, 2.0]
    assert limits_of([actions], ARM, quantile=0.5).velocity[:2].tolist() == [1.5, 2.0]
    assert np.isinf(limits.velocity[4]), "what never moved is not capped"
    with pytest.raises(SpecMismatchError, match="three steps and more; there is none"):
        limits_of([actions[:2]], ARM)


def test_replan_plans_afresh_once_per_alarm_with_a_shorter_horizon_while_it_lasts():
    loop = drive(Replan(execute=1, dwell_s=0.1), 3, 4, policy=Drawing(), ticks=12)
    assert [step for step, _ in loop.policy.inferred] == [0, 4, 5, 6, 11], "fresh at 4; its own horizon again from 6"
    assert x_of(loop)[:8] == [0.1, 0.2, 0.3, 0.4, 0.1, 0.1, 0.1, 0.2]


def test_resample_goes_on_with_the_medoid_or_the_verifiers_choice_from_the_same_action_on():
    loop = drive(Resample(dwell_s=0.1), 2, policy=Drawing(), ticks=7)
    assert x_of(loop) == [0.1, 0.2, 0.3, 0.3, 0.3, 0.1, 0.2], "until the next inference"
    assert loop.trace.rows[2].decision == "resample"
    best = drive(Resample(choose=lambda samples, context: 2, dwell_s=0.1), 2, policy=Drawing(), ticks=6)
    assert x_of(best) == [0.1, 0.2, 0.9, 0.9, 0.9, 0.1]
    sim = fakes.PointSim()
    loop = Loop(sim, Steady(), intervention=Resample(), robot=Robot(sim))
    loop.start(KEY)
    loop.run()
    assert loop.trace.error.startswith("intervention: Resampling chooses among the policy's samples")
    assert loop.robot.sent == [[0.0, 0.0, 0.0, -1.0]], "said before anything moved"


def test_backtrack_undoes_the_last_commands_and_plans_afresh():
    loop = drive(Backtrack(back_s=0.15), 3, 4, 9, ticks=10)
    assert x_of(loop) == [0.1, 0.2, 0.1, -0.1, -0.2, -0.1, 0.1, 0.2, 0.1, 0.2], "once, and seen through"
    assert [step for step, _ in loop.policy.inferred][-3:] == [6, 8, 10]
    early = drive(Backtrack(back_s=0.15), 1, ticks=3)
    assert x_of(early) == [0.1, -0.1, 0.1], "no farther than to where it began"
    sent = [np.array([value, value, 1.0, 0.5, 0.0], np.float32) for value in (0.1, 0.2, 0.4)]
    lying = replace(context(), action_spec=replace(ARM, dimensions=ARM.dimensions[:4]), sent=[row[:4] for row in sent])
    lying = replace(lying, last_action=sent[-1][:4])
    first = Backtrack(back_s=0.1).propose(ALARM, lying)
    assert first.action.tolist() == pytest.approx([0.2, -0.4, 1.0, 0.0]), "the target before, the opposite, the grip"


def context(state=(0.3, 0.1, 0.05, 1.0), gripper=1.0):
    return Context(
        step=40,
        horizon=160,
        state=np.array(state, np.float32),
        path=[],
        last_action=np.array([0, 0, 0, gripper], np.float32),
        action_spec=fakes.ACTIONS,
        observation_spec=with_look(fakes.OBSERVATIONS, {"x_m": 0.35, "y_m": 0.1, "z_m": 0.2}, "here"),
        instruction="go home",
    )


def test_regain_view_rises_then_goes_to_the_look_pose_and_keeps_its_grip():
    """0.15 m too low, 0.05 m per unit: up at full speed and nothing else; then 0.01 m and 0.05 m at once."""
    rung = RegainView()
    assert rung.propose(QUIET, context()).kind == "continue"
    assert rung.propose(ALARM, context()).action.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert rung.propose(QUIET, context((0.3, 0.1, 0.19, 0.0))).action.tolist() == pytest.approx(
        [1.0, 0.0, 0.2, 1.0], abs=1e-6
    )
    assert rung.propose(QUIET, context((0.345, 0.1, 0.195, 0.0))).kind == "continue", "there"
    assert rung.propose(ALARM, context()).kind == "continue", "once per episode"
    tired = RegainView(limit_s=0.1)
    assert [tired.propose(ALARM, context()).kind for _ in range(3)] == ["regain_view", "regain_view", "continue"]
    given = RegainView(look={"x_m": 0.2})
    assert given.propose(ALARM, context()).action.tolist() == pytest.approx([-1.0, 0.0, 0.0, 1.0], abs=1e-6)


def test_reinstruct_says_the_next_wording_at_every_alarm():
    for wordings in ({"go home": ["come home", "return"]}, lambda text: ["come home", "return"]):
        loop = drive(Reinstruct(wordings), 1, 2, 4, 6)
        said = [(row.step, row.instruction) for row in loop.trace.rows if row.instruction]
        assert said == [(1, "come home"), (4, "return")]
        assert loop.trace.rows[6].reason == "no other wording of 'go home' is known"
        assert x_of(loop) == [0.1, 0.0, 0.1, 0.2, 0.0, 0.1, 0.2, 0.1], "a hold, then a new plan"
    with pytest.raises(EpisodeDataError, match="wordings of 'go home'"):
        Reinstruct({"go home": [""]})


class Other(Steady):
    """Plans 0.6, 0.7, ... 1.0 along x, and executes three of them."""

    execute = 3

    def infer(self, observation, step):
        output = super().infer(observation, step)
        return replace(output, chunk=output.chunk + np.array([0.5, 0, 0, 0], np.float32))


def test_another_policy_acts_by_its_own_chunks_from_the_trigger_on():
    sim, other = fakes.PointSim(), Other()
    loop = Loop(sim, Steady(), monitor=Alarms(3), intervention=Fallback(), fallback=other, robot=Robot(sim))
    loop.start(KEY)
    pending = loop.run(until=lambda step, verdict: step.index == 5)
    snapshot = loop.save(pending)
    loop.act(*pending)
    loop.run(until=lambda step, verdict: step.index == 9)
    assert x_of(loop) == [0.1, 0.2, 0.1, 0.6, 0.7, 0.8, 0.6, 0.7, 0.8]
    assert [step for step, _ in other.inferred] == [3, 6]
    assert [row.decision for row in loop.trace.rows[2:4]] == ["continue", "fallback"]

    class Goes(Fallback):
        def reset(self):
            self._taken = True

    again = fakes.PointSim()
    fork = Loop(again, Steady(), monitor=Alarms(), fallback=Other(), robot=Robot(again))
    fork.resume(snapshot, Goes())
    assert x_of(fork)[:4] == [0.8, 0.6, 0.7, 0.8], "a future goes on in the middle of the other policy's chunk"


def test_another_policy_that_comes_back_plans_afresh():
    sim, other = fakes.PointSim(), Other()
    stands_in = Decision(kind=DecisionKind.FALLBACK, reason="test")
    loop = Loop(sim, Steady(), intervention=Says(dict.fromkeys((1, 2, 4), stands_in)), fallback=other, robot=Robot(sim))
    loop.start(KEY)
    loop.run(until=lambda step, verdict: step.index == 6)
    assert x_of(loop) == [0.1, 0.6, 0.7, 0.1, 0.6, 0.1], "and so does the first one"
    assert [step for step, _ in other.inferred] == [1, 4]


def test_nobody_is_handed_over_to_where_there_is_no_other_policy():
    gate = (GateEntry(rung="fallback", triggers=40, rescues=30, harms=0),)
    for rung in (Fallback(), find_arm("ladder").make(gate)):
        with pytest.raises(SpecMismatchError, match="there is none: Loop"):
            Loop(fakes.PointSim(), Steady(), intervention=rung)
    with pytest.raises(FailsightError, match="Arm fallback hands over to another policy"):
        require_live(CollectOptions(arm="fallback"))


BASE = replace(fakes.ACTIONS, dimensions=(Dimension(name="vx", kind="velocity", unit="m/s"),))
TORQUE = replace(fakes.ACTIONS, dimensions=(Dimension(name="t0", kind="torque", unit="N m", hold=0.0),))


@pytest.mark.parametrize(
    ("rung", "actions", "says"),
    [
        (Limit(), TORQUE, r"A limit needs a delta, velocity or absolute action; this robot has t0 \(torque\)"),
        (Limit(), ARM, "The range of j0 says where to be"),
        (Limit(caps(0.1)), ARM, "4 entries for the 5 action dimensions"),
        (Backtrack(), TORQUE, "Backtracking needs"),
        (Backtrack(), ARM, "nothing undoes the torque t0"),
        (RegainView(), fakes.ACTIONS, "there is no look pose. Name one .*, of the state entries x_m, y_m, z_m"),
        (RegainView(look={"x_m": 0.0}), BASE, r"no action moves x_m.*\(none here\)"),
    ],
)
def test_a_robot_that_a_rung_cannot_help_is_refused_before_the_first_step(rung, actions, says):
    with pytest.raises(SpecMismatchError, match=says):
        require_robot(rung, actions, fakes.OBSERVATIONS)


def test_a_look_pose_is_numbers_of_the_state():
    with pytest.raises(SpecMismatchError, match="no entry 'q_m'"):
        with_look(fakes.OBSERVATIONS, {"q_m": 0.0}, "here")
    with pytest.raises(EpisodeDataError, match="here, look, x_m"):
        with_look(fakes.OBSERVATIONS, {"x_m": "far"}, "here")


class Constant(fakes.PointPolicy):
    """A tenth of the range of every dimension, whatever it sees."""

    def __init__(self, sim):
        super().__init__()
        self.action_spec, self.observation_spec = sim.action_spec, sim.observation_spec

    def infer(self, observation, step):
        chunk = np.tile(0.1 * self.action_spec.high, (5, 1)).astype(np.float32)
        return PolicyOutput(chunk=chunk, samples=np.stack([chunk] * 3))


@pytest.mark.sim
@pytest.mark.parametrize(
    ("sim", "able"),
    [
        ("tabletop", {"slow", "limit", "conservative", "replan", "resample", "backtrack", "regain_view", "retry"}),
        ("navigation", {"slow", "limit", "conservative", "replan", "resample", "backtrack"}),
    ],
)
def test_which_rungs_work_on_our_robots(sim, able):
    world = make_sim(sim)
    policy = Constant(world)
    rungs = [arm for arm in ARMS.values() if arm.rung and arm.autonomous and arm.key != "fallback"]
    found = set()
    for arm in rungs:
        try:
            require_robot(arm.make(()), world.action_spec, world.observation_spec)
        except SpecMismatchError:
            continue
        found.add(arm.key)
        loop = Loop(world, policy, monitor=Alarms(12, 13), intervention=arm.make(()))
        loop.start(EpisodeKey(seed=3, task=world.tasks()[0].id, episode=1))
        loop.run(until=lambda step, verdict: step.index == 15)
        assert not loop.trace.error, f"{arm.key}: {loop.trace.error}"
        assert [str(kind) for kind in loop.trace.kinds] != ["continue"] * 15, arm.key
    world.close()
    assert found == able
    assert set(DEFAULT_ARMS) < set(ARMS), "a default run pays for no more futures than before"
