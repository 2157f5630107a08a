"""What every decision changes in what the robot is sent: values by hand, forks exact, the run remembers."""

from dataclasses import replace

import numpy as np
import pytest
from test_faults import Monitor, Robot

from failsight.core.errors import FailsightError
from failsight.core.specs import ActionSpec, Dimension
from failsight.core.types import CONTINUE, Decision, DecisionKind, EpisodeKey, Limits, PolicyOutput
from failsight.episodes.verdicts import Judge, changes_of, verdict_table
from failsight.interventions.motion import Motion
from failsight.interventions.rungs import Watch
from failsight.runtime.loop import Loop
from failsight.testing import fakes

KEY = EpisodeKey(seed=3, task="home", episode=1)


class Steady(fakes.PointPolicy):
    """Plans 0.1, 0.2, ... 0.5 along x with an open gripper; notes when it infers, and what it was told by then."""

    execute = 2

    def __init__(self):
        super().__init__()
        self.inferred = []

    def infer(self, observation, step):
        self.inferred.append((step, self._instruction))
        chunk = np.zeros((5, 4), np.float32)
        chunk[:, 0], chunk[:, 3] = 0.1 * np.arange(1, 6), -1.0
        return PolicyOutput(chunk=chunk, hidden=np.zeros(8, np.float16))


class Says(Watch):
    """Decides by step; from the last one it names on, always the same."""

    def __init__(self, said):
        self._said = said

    def propose(self, verdict, context):
        return self._said.get(context.step, CONTINUE)


def slow(rate):
    return Decision(kind=DecisionKind.SLOW, reason="test", rate=rate)


def drive(said, ticks=8):
    """x of every command, the commands, and when the policy inferred."""
    sim, policy = fakes.PointSim(), Steady()
    loop = Loop(sim, policy, monitor=Monitor(), intervention=Says(said), robot=Robot(sim))
    loop.start(KEY)
    loop.run(until=lambda step, verdict: step.index == ticks)
    return x_of(loop), loop, [step for step, _ in policy.inferred]


def x_of(loop):
    """What was sent along x."""
    return [round(command[0], 3) for command in loop.robot.sent]


def test_without_decisions_two_actions_of_every_chunk_are_sent():
    sent, _, inferred = drive({})
    assert sent == [0.1, 0.2] * 4
    assert inferred == [0, 2, 4, 6, 8]


def test_half_speed_from_step_0_sends_every_action_in_halves_and_plans_half_as_often():
    sent, loop, inferred = drive(dict.fromkeys(range(8), slow(0.5)))
    assert sent == [0.05, 0.05, 0.1, 0.1] * 2
    assert inferred == [0, 4, 8]
    assert {command[3] for command in loop.robot.sent} == {-1.0}, "the gripper is sent as it is planned"


def test_no_part_of_an_action_is_sent_twice_or_left_out():
    """0.3 of 0.1 three times and the rest; leaving half-way, what is left of it."""
    sent, _, _ = drive(dict.fromkeys(range(8), slow(0.3)))
    assert sent == pytest.approx([0.03, 0.03, 0.03, 0.01, 0.06, 0.06, 0.06, 0.02])
    sent, _, _ = drive({0: slow(0.5), 3: slow(0.1)})
    assert sent == pytest.approx([0.05, 0.05, 0.2, 0.01, 0.09, 0.2, 0.1, 0.2])
    tenths, _, inferred = drive(dict.fromkeys(range(25), slow(0.1)), ticks=20)
    assert tenths == pytest.approx([0.01] * 10 + [0.02] * 10), "ten tenths are one"
    assert inferred == [0, 20]


ARM = ActionSpec(
    dimensions=(
        Dimension(name="j0", kind="absolute", unit="rad"),
        Dimension(name="vx", kind="velocity", unit="m/s"),
        Dimension(name="gripper", kind="absolute", unit="m"),
        Dimension(name="gripper_speed", kind="velocity", unit="m/s"),
        Dimension(name="t0", kind="torque", unit="N m", hold=0.0),
    ),
    frame="",
    rate_hz=20.0,
    gripper_closed_sign=1,
)


def test_targets_are_reached_in_parts_and_grippers_and_torques_stay_as_planned():
    """From 0.2 to 0.6 in two halves: 0.4, then the rest."""
    motion, planned = Motion(ARM), np.array([0.6, 0.8, 1.0, 0.9, 0.7], np.float32)
    assert motion.names == ("j0", "vx")
    first = motion.slowed(planned, np.array([0.2, 0.1, 0, 0, 0], np.float32), 0.0, 0.5)
    assert first == pytest.approx([0.4, 0.4, 1.0, 0.9, 0.7])
    assert motion.slowed(planned, first, 0.5, 0.5) == pytest.approx([0.6, 0.4, 1.0, 0.9, 0.7])


def test_caps_by_hand():
    """A target 0.4 away at velocity 0.1 that may grow by 0.05: 0.05, 0.1, 0.1; a velocity of 0.8 likewise; gripper free."""
    motion, limits = Motion(ARM), Limits(velocity=np.full(5, 0.1), acceleration=np.full(5, 0.05))
    before = last = np.zeros(5, np.float32)
    planned, said = np.array([0.4, 0.8, 1.0, -1.0, 0.7], np.float32), []
    for _ in range(3):
        last, before = motion.limited(planned, last, before, limits), last
        said.append(last.tolist())
    assert [row[0] for row in said] == pytest.approx([0.05, 0.15, 0.25])
    assert [row[1] for row in said] == pytest.approx([0.05, 0.1, 0.1])
    assert [row[2:] for row in said] == [pytest.approx([1.0, -1.0, 0.7])] * 3
    fast = np.array([0, 0.5, 0, 0, 0], np.float32)
    assert motion.limited(planned, fast, fast, limits)[1] == pytest.approx(0.45), "from too fast it slows by the cap"


class Joint(fakes.PointSim):
    """The point with a target along x in place of a motion."""

    action_spec = replace(
        fakes.ACTIONS, dimensions=(Dimension(name="x", kind="absolute", unit="m"), *fakes.ACTIONS.dimensions[1:])
    )


class Far(Steady):
    """The target is 9 m away, whatever happens."""

    action_spec = Joint.action_spec

    def infer(self, observation, step):
        return PolicyOutput(chunk=np.tile(np.array([9.0, 0, 0, -1], np.float32), (5, 1)))


def test_a_capped_target_moves_by_velocities_that_grow_by_the_cap():
    """At most 0.2 per step and 0.05 more than before, from where it was measured: 0.05, 0.1, 0.15, 0.2, 0.2."""
    said = dict.fromkeys(range(5), limit(velocity=0.2, acceleration=0.05))
    sim = Joint()
    loop = Loop(sim, Far(), intervention=Says(said), robot=Robot(sim))
    loop.start(KEY)
    x = float(loop.at.state[0])
    loop.run(until=lambda step, verdict: step.index == 5)
    steps = np.diff([x, *(command[0] for command in loop.robot.sent)])
    assert steps == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2], abs=2e-3)


def limit(velocity=np.inf, acceleration=np.inf, **more):
    caps = Limits(velocity=np.full(4, velocity), acceleration=np.full(4, acceleration))
    return Decision(kind=DecisionKind.LIMIT, reason="test", limits=caps, **more)


def test_a_cap_holds_from_the_tick_that_says_it():
    sent, loop, _ = drive({2: limit(velocity=0.15), 3: limit(velocity=0.15), 4: limit(acceleration=0.02)})
    assert sent == pytest.approx([0.1, 0.2, 0.1, 0.15, 0.13, 0.2, 0.1, 0.2])
    assert {command[3] for command in loop.robot.sent} == {-1.0}


def test_another_executed_horizon_holds_until_the_policys_own_is_wanted_again():
    shorter = Decision(kind=DecisionKind.REPLAN, reason="test", execute=1)
    own = Decision(kind=DecisionKind.CONTINUE, reason="", execute=0)
    sent, _, inferred = drive({2: shorter, 5: own})
    assert sent == [0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1]
    assert inferred == [0, 2, 3, 4, 5, 7]
    sent, loop, inferred = drive({0: limit(execute=4)}, ticks=8)
    assert (sent, inferred) == ([0.1, 0.2, 0.3, 0.4] * 2, [0, 4, 8])
    sent, loop, _ = drive({0: limit(execute=50)}, ticks=10)
    assert sent == [0.1, 0.2, 0.3, 0.4, 0.5] * 2, "never past the end of a chunk"
    assert not loop._guard.latched


def told(text="go to the origin", **more):
    return Decision(kind=DecisionKind.REINSTRUCT, reason="test", instruction=text, **more)


def test_another_instruction_voids_the_plan_and_is_not_a_new_episode():
    sent, loop, inferred = drive({3: told(), 4: told(), 6: told("go home")})
    assert sent == [0.1, 0.2, 0.1, 0.0, 0.1, 0.2, 0.0, 0.1], (
        "a hold while it plans; the same words again change nothing"
    )
    assert inferred == [0, 2, 4, 6, 7]
    words = [text for _, text in loop.policy.inferred]
    assert words == ["go home", "go home", "go to the origin", "go to the origin", "go home"]
    assert loop.at.step == 8
    rows = [(row.step, row.decision, row.instruction) for row in loop.trace.rows if row.instruction]
    assert rows == [
        (3, "reinstruct", "go to the origin"),
        (4, "reinstruct", "go to the origin"),
        (6, "reinstruct", "go home"),
    ]
    frame = verdict_table(7, loop.trace.rows, Judge()).to_pandas()
    assert changes_of({Judge(): frame}) == {7: ((4, "go to the origin"), (7, "go home"))}


@pytest.mark.parametrize("at", range(8))
def test_a_future_saved_at_any_tick_is_the_whole_episode(at):
    said = {0: slow(0.3), 1: slow(0.3), 2: limit(0.15, 0.02, execute=3), 4: told(), 5: slow(0.5)}
    whole, _, _ = drive(said, ticks=10)
    loop = Loop(fakes.PointSim(), Steady(), monitor=Monitor(), intervention=Says(said))
    loop.start(KEY)
    snapshot = loop.save(loop.run(until=lambda step, verdict: step.index == at))
    sim = fakes.PointSim()
    other = Loop(sim, Steady(), monitor=Monitor(), robot=Robot(sim))
    other.resume(snapshot, Says(said))
    assert x_of(other)[: 10 - at] == whole[at:]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: slow(0.0), "rate is 0.0; write a share"),
        (lambda: slow(1.5), "rate is 1.5"),
        (lambda: slow(float("nan")), "rate is nan"),
        (lambda: Decision(kind=DecisionKind.REPLAN, reason="", execute=-1), "execute is -1"),
        (lambda: Decision(kind=DecisionKind.REPLAN, reason="", execute=1.5), "execute is 1.5"),
        (lambda: told("  "), "instruction is empty"),
        (lambda: Limits(velocity=np.ones(3), acceleration=np.ones(4)), "one velocity and one acceleration"),
        (lambda: Limits(velocity=np.array([1.0, 0.0]), acceleration=np.ones(2)), "velocity is above 0, not 0.0"),
        (lambda: Limits(velocity=np.ones(2), acceleration=np.array([np.nan, 1.0])), "acceleration is above 0"),
    ],
)
def test_what_nobody_could_carry_out_is_refused(make, says):
    with pytest.raises(FailsightError, match=says):
        make()


def test_a_limit_of_another_robot_ends_the_episode_by_name():
    caps = Limits(velocity=np.ones(2), acceleration=np.ones(2))
    sim = fakes.PointSim()
    said = Says({1: Decision(kind=DecisionKind.LIMIT, reason="test", limits=caps)})
    loop = Loop(sim, Steady(), intervention=said, robot=Robot(sim))
    loop.start(KEY)
    loop.run()
    assert loop.trace.error == "intervention: the limits have 2 entries for the 4 action dimensions dx, dy, dz, gripper"
