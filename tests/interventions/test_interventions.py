from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from failsight.core.contracts import Context
from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec, Dimension
from failsight.core.types import DecisionKind, Risk, Verdict
from failsight.interventions.fitness import require_robot
from failsight.interventions.gate import GateEntry
from failsight.interventions.guard import Guard
from failsight.interventions.ladder import Ladder
from failsight.interventions.placebo import Forced
from failsight.interventions.rungs import Retry, SafeStop, Slow, Takeover
from failsight.runtime.loop import Loop
from failsight.testing.fakes import ACTIONS, OBSERVATIONS, PointSim

QUIET = Verdict(risk=Risk(p_fail=0.1), threshold=0.5, margin=-0.4, trigger=False, why="")
ALARM = Verdict(risk=Risk(p_fail=0.9), threshold=0.5, margin=0.4, trigger=True, why="test")


def context(state=(0.3, 0.1, 0.05, 1.0), gripper=-1.0, step=40):
    path = [np.array([0.3, 0.1, 0.05 + 0.01 * (40 - i), 1.0], np.float32) for i in range(40)]
    return Context(
        step=step,
        horizon=160,
        state=np.array(state, np.float32),
        path=path,
        last_action=np.array([0, 0, 0, gripper], np.float32),
        action_spec=ACTIONS,
        observation_spec=OBSERVATIONS,
    )


def test_the_guard_clips_holds_and_latches():
    guard = Guard(ACTIONS)
    last = np.array([0.1, 0.1, 0.1, 1.0], np.float32)
    assert guard.check(np.array([5, -5, 0, 1.0]), last).tolist() == [1, -1, 0, 1]
    bad = np.full(4, np.nan)
    for expected in (False, True):
        held = guard.check(bad, last)
        assert held.tolist() == [0, 0, 0, 1.0], "a hold keeps the gripper closed"
        assert guard.latched is expected
    guard.check(last, last)
    guard.reset()
    assert guard.latched, "only a person releases the latch, no new episode does"
    assert guard.reason == "the action is not finite, on 2 of the last 3 ticks"
    guard.release("Ada")
    assert not guard.latched
    assert guard.note == "released by Ada"


@pytest.mark.parametrize(("pattern", "latches"), [("x..x..x..x", False), ("x.x", True), ("xx.", True), ("..xx", True)])
def test_two_bad_ticks_of_three_latch_and_one_does_not(pattern, latches):
    guard, good, bad = Guard(ACTIONS), np.zeros(4), np.full(4, np.inf)
    for mark in pattern:
        guard.check(bad if mark == "x" else good, good)
    assert guard.latched is latches


def test_what_the_policy_says_does_not_count_while_somebody_else_drives():
    guard, good, bad = Guard(ACTIONS), np.zeros(4), np.full(4, np.nan)
    for _ in range(6):
        guard.finite(bad, good)
        guard.check(good, good)
    assert not guard.latched
    for _ in range(2):
        guard.check(bad, good)
    assert guard.latched, "what the person sends does count"


@pytest.mark.parametrize("action", [np.zeros((4, 1)), np.zeros(1), np.zeros((1, 4)), np.float32(0.5)])
def test_an_action_of_another_shape_is_held_and_never_broadcast(action):
    guard = Guard(ACTIONS)
    assert guard.check(action, np.ones(4, np.float32)).tolist() == [0, 0, 0, 1]
    assert "shape" in guard.note


def test_a_hold_beyond_the_range_is_not_clipped_into_a_motion():
    spec = ActionSpec(
        dimensions=(Dimension(name="j0", kind="absolute", unit="rad", low=-1.0, high=1.0),),
        frame="joint",
        rate_hz=20.0,
        gripper_closed_sign=1,
    )
    guard = Guard(spec)
    measured = spec.first(np.array([1.2], np.float32), ("j0_rad",))
    assert guard.check(np.array([np.nan]), measured) == pytest.approx(1.2)


HOLDS = [
    (Dimension(name="j0", kind="absolute", unit="rad"), ("j0",), (0.7,), 0.7),
    (Dimension(name="j0", kind="absolute", unit="rad"), ("x", "j0_rad"), (9.0, 0.7), 0.7),
    (Dimension(name="j0", kind="absolute", unit="rad", hold=0.2), ("x",), (9.0,), 0.2),
    (Dimension(name="dx", kind="delta", unit="m"), (), (), 0.0),
    (Dimension(name="gripper", kind="binary", unit="sign"), ("gripper_open01",), (0.9,), -1.0),
    (Dimension(name="gripper", kind="binary", unit="sign"), ("gripper_open01",), (0.1,), 1.0),
    (Dimension(name="gripper", kind="binary", unit="sign"), ("finger_l_m", "finger_r_m"), (0.039, -0.039), -1.0),
    (Dimension(name="gripper", kind="binary", unit="sign"), ("finger_l_m", "finger_r_m"), (0.01, -0.01), 1.0),
    (Dimension(name="gripper", kind="absolute", unit="m", low=0.0, high=0.08), ("gripper_open01",), (0.1,), 0.08),
]


@pytest.mark.parametrize(("dimension", "names", "state", "expected"), HOLDS)
def test_the_first_hold_is_measured_or_declared(dimension, names, state, expected):
    spec = ActionSpec(dimensions=(dimension,), frame="", rate_hz=20.0, gripper_closed_sign=1)
    assert spec.first(np.array(state, np.float32), names).tolist() == pytest.approx([expected])


@pytest.mark.parametrize("kind", ["absolute", "torque", "binary"])
def test_what_nobody_can_hold_still_is_refused_by_name(kind):
    spec = ActionSpec(
        dimensions=(Dimension(name="j7", kind=kind, unit=""),), frame="", rate_hz=20.0, gripper_closed_sign=1
    )
    with pytest.raises(SpecMismatchError, match=r"'j7'.*Give Dimension\(hold"):
        spec.first(np.zeros(1), ("x",))


def test_retry_backs_up_along_its_own_path_with_open_gripper():
    retry = Retry()
    decision = retry.propose(ALARM, context())
    assert decision.kind == DecisionKind.BACKTRACK
    assert decision.action[2] > 0, "up first"
    assert decision.action[3] == -1.0


def test_retry_keeps_its_grip_when_holding():
    decision = Retry().propose(ALARM, context(state=(0.3, 0.1, 0.05, 0.5), gripper=1.0))
    assert decision.action[3] == 1.0
    assert decision.action[:2].tolist() == [0, 0]


def test_retry_ends_and_does_not_start_again():
    retry = Retry(attempts=1)
    assert retry.propose(ALARM, context()).kind == DecisionKind.BACKTRACK
    for _ in range(20):
        while retry._waypoints:
            target = retry._waypoints[0]
            retry.propose(ALARM, context(state=(*target, 1.0)))
        assert retry.propose(ALARM, context()).kind == DecisionKind.CONTINUE


def test_slow_dwells_then_lets_go():
    slow = Slow(dwell_s=0.15)
    kinds = [slow.propose(v, context()).kind for v in (QUIET, ALARM, QUIET, QUIET, QUIET)]
    assert kinds == ["continue", "slow", "slow", "slow", "continue"]


def at_rate(rate_hz, **changes):
    return replace(context(**changes), action_spec=replace(ACTIONS, rate_hz=rate_hz))


RATES = pytest.mark.parametrize(
    ("rate_hz", "dwell", "back", "apart", "cooldown", "patience"),
    [(20.0, 20, 30, 4, 25, 30), (80.0, 80, 120, 16, 100, 120), (2.5, 3, 4, 1, 3, 4), (0.0, 20, 30, 4, 25, 30)],
)
"""Tabletop and LIBERO, Meta-World, navigation, not known: 1 s, 1.5 s, 0.2 s, 1.25 s and 1.5 s in steps, halves up."""


@RATES
def test_rungs_and_ladder_count_seconds_not_steps(rate_hz, dwell, back, apart, cooldown, patience):
    now, slow, retry = at_rate(rate_hz), Slow(), Retry(attempts=2)
    kinds = [slow.propose(v, now).kind for v in (ALARM, *[QUIET] * dwell)]
    assert kinds == ["slow"] * dwell + ["continue"]

    path = [np.array([0.3, 0.1, 1.0 - 0.001 * i, 1.0], np.float32) for i in range(200)]
    retry.propose(ALARM, replace(now, path=path))
    heights = [point[2] for point in retry._waypoints[1:-1]]
    assert heights == pytest.approx([1.0 - 0.001 * i for i in range(199, 199 - back, -apart)])
    while retry._waypoints:
        retry.propose(QUIET, at_rate(rate_hz, state=(*retry._waypoints[0], 1.0)))
    waited = [retry.propose(ALARM, now).kind for _ in range(cooldown)]
    assert waited == ["continue"] * (cooldown - 1) + ["backtrack"]

    names = ("slow", "takeover")
    rungs = {"slow": Slow(dwell_s=100.0), "takeover": Takeover()}
    climbing = Ladder(rungs, names, [entry(name, 40, 30, 0) for name in names])
    said = [climbing.propose(ALARM, now).kind for _ in range(patience + 2)]
    assert said == ["slow"] * (patience + 1) + ["human"]


def test_takeover_stays_taken_over():
    takeover = Takeover()
    assert [takeover.propose(v, context()).kind for v in (QUIET, ALARM, QUIET)] == ["continue", "human", "human"]


def entry(rung, triggers, rescues, harms):
    return GateEntry(rung=rung, triggers=triggers, rescues=rescues, harms=harms)


@pytest.mark.parametrize(
    ("gate", "opens"),
    [
        (entry("r", 0, 0, 0), False),
        (entry("r", 40, 2, 12), False),
        (entry("r", 40, 8, 8), False),
        (entry("r", 5, 3, 0), False),
        (entry("r", 40, 25, 1), True),
    ],
)
def test_a_rung_opens_only_when_the_lower_bound_is_positive(gate, opens):
    assert gate.open is opens


def test_the_gates_bound_is_honest():
    """A rung with no true effect opens in about one of twenty studies."""
    rng = np.random.default_rng(0)
    opened = []
    for _ in range(2000):
        rescues, harms, _ = rng.multinomial(40, [0.2, 0.2, 0.6])
        opened.append(entry("r", 40, int(rescues), int(harms)).open)
    assert np.mean(opened) < 0.08


def ladder(gate):
    rungs = {"slow": Slow(dwell_s=5.0), "takeover": Takeover(), "stop": SafeStop()}
    return Ladder(rungs, ("slow", "takeover"), tuple(gate.values()), patience_s=0.25)


def test_the_ladder_skips_shut_rungs():
    gate = {"slow": entry("slow", 40, 1, 9), "takeover": entry("takeover", 40, 30, 0)}
    assert ladder(gate).propose(ALARM, context()).kind == DecisionKind.HUMAN


def test_the_ladder_watches_when_nothing_earned_its_place():
    gate = {"slow": entry("slow", 40, 1, 9)}
    quiet = ladder(gate)
    assert all(quiet.propose(ALARM, context()).kind == DecisionKind.CONTINUE for _ in range(20))


def test_the_ladder_climbs_when_the_alarm_stays():
    gate = {"slow": entry("slow", 40, 30, 0), "takeover": entry("takeover", 40, 30, 0)}
    climbing = ladder(gate)
    kinds = [climbing.propose(ALARM, context()).kind for _ in range(10)]
    assert kinds[0] == "slow"
    assert kinds[-1] == "human"


def test_after_three_attempts_of_its_own_the_ladder_calls_the_person():
    """Four autonomous rungs and a person: the alarm comes back every six steps; the fourth time it is the person, not the
    fourth rung."""
    names = ("a", "b", "c", "d", "person")
    rungs = {**{name: Slow(rate=0.1 * (i + 1), dwell_s=5.0) for i, name in enumerate("abcd")}, "person": Takeover()}
    climbing = Ladder(rungs, names, [entry(name, 40, 30, 0) for name in names], patience_s=0.25)
    for _ in range(2):  # and again after a reset
        climbing.reset()
        said = [climbing.propose(ALARM, context()) for _ in range(24)]
        assert [round(said[t].rate, 1) for t in (0, 6, 12)] == [0.1, 0.2, 0.3]
        assert [decision.kind for decision in said] == ["slow"] * 18 + ["human"] * 6


def test_a_rung_that_cannot_move_a_robot_says_so_before_the_first_step():
    """A base without a gripper, an arm with absolute joints, and a Cartesian arm that does not say where its tool is."""
    base = replace(ACTIONS, dimensions=tuple(Dimension(name=n, kind="velocity", unit="m/s") for n in ("vx", "vy")))
    absolute = replace(ACTIONS, dimensions=tuple(replace(d, kind="absolute") for d in ACTIONS.dimensions))
    blind = replace(OBSERVATIONS, state=("x_m", "y_m", "gripper_open01"))
    for actions, observations, lacks in (
        (base, OBSERVATIONS, "a delta action dx.*a binary action gripper"),
        (absolute, OBSERVATIONS, "a delta action dx, a delta action dy"),
        (ACTIONS, blind, "a state z_m"),
    ):
        gate = {"retry": entry("retry", 40, 30, 0), "takeover": entry("takeover", 40, 30, 0)}
        rungs = {"retry": Retry(), "takeover": Takeover()}
        for rung in (Retry(), Ladder(rungs, ("retry", "takeover"), tuple(gate.values())), Forced(Retry())):
            require_robot(rung, ACTIONS, OBSERVATIONS)
            with pytest.raises(SpecMismatchError, match=f"needs.* {lacks}"):
                require_robot(rung, actions, observations)
        shut = Ladder(rungs, ("retry", "takeover"), (entry("retry", 40, 1, 9), gate["takeover"]))
        require_robot(shut, actions, observations)  # a rung that may not act need not be able to
        for rung in (Takeover(), SafeStop(), Slow(), None):
            require_robot(rung, actions, observations)


def test_what_has_no_motion_cannot_go_slower():
    torque = replace(ACTIONS, dimensions=(Dimension(name="t0", kind="torque", unit="N m", hold=0.0),))
    with pytest.raises(SpecMismatchError, match=r"Going slower needs .* has t0 \(torque\)"):
        require_robot(Slow(), torque, OBSERVATIONS)


def test_a_loop_refuses_such_a_rung_when_it_is_made():
    sim = PointSim()
    spec = replace(sim.observation_spec, state=tuple(f"{name}_of_the_base" for name in sim.observation_spec.state))
    sim.observation_spec = spec
    policy = SimpleNamespace(action_spec=sim.action_spec, observation_spec=spec)
    with pytest.raises(SpecMismatchError, match="Retry backtracks"):
        Loop(sim, policy, intervention=Retry())


@pytest.mark.parametrize("sim", ["tabletop", "metaworld", "libero"])
def test_every_simulators_actions_can_be_held_from_its_state(sim):
    env = pytest.importorskip(f"failsight.sims.{sim}.env")
    held = env.ACTION_SPEC.first(np.full(len(env.STATE_NAMES), 0.9), env.STATE_NAMES)
    assert held.tolist() == [0.0] * (len(held) - 1) + [-1.0], "an open gripper stays open"
