"""The guard's limits and its watchdog: every cell of the table, every number worked out by hand."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError, FailsightError, SpecMismatchError
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.types import Limits
from failsight.interventions.guard import Guard, GuardState, Onlooker
from failsight.interventions.limits import GuardLimits, limits_from
from failsight.interventions.watchdog import TRANSITIONS, GuardMode, Lateness, Sign, Watchdog

SPEC = ActionSpec(
    dimensions=(
        Dimension(name="dx", kind="delta", unit="m", scale=0.1),
        Dimension(name="j0", kind="absolute", unit="rad", low=-3.0, high=3.0),
        Dimension(name="vy", kind="velocity", unit="m", scale=0.5),
        Dimension(name="tau", kind="torque", unit="Nm", low=-10.0, high=10.0, hold=0.0),
        Dimension(name="gripper", kind="binary", unit="sign"),
    ),
    frame="base",
    rate_hz=10.0,
    gripper_closed_sign=1,
)
SEEN = ObservationSpec(state=("x_m", "j0_rad", "y_m"), cameras=())
FREE = np.full(5, np.inf)
LAST = np.array([0.0, 1.0, 0.0, 2.0, 1.0], np.float32)
STATE = np.array([0.0, 1.0, 0.0], np.float32)


def limits(low=-FREE, high=FREE, velocity=FREE, acceleration=FREE, **workspace):
    caps = Limits(velocity=np.array(velocity), acceleration=np.array(acceleration))
    return GuardLimits(names=SPEC.names, low=np.array(low), high=np.array(high), caps=caps, workspace=workspace)


def guard(**more):
    return Guard(SPEC, limits(**more), SEEN)


def test_velocity_is_capped_by_kind() -> None:
    one = guard(velocity=[0.2, 0.3, 0.4, 0.5, 0.6])
    sent = one.check(np.array([1.0, 2.0, -1.0, 9.0, -1.0]), LAST, state=STATE)
    assert sent.tolist() == pytest.approx([0.2, 1.3, -0.4, 9.0, -1.0]), "torque and gripper are never capped"
    assert one.note == "limited: dx 1 to 0.2, j0 2 to 1.3, vy -1 to -0.4"


def test_acceleration_is_capped_against_the_velocity_before() -> None:
    one = guard(acceleration=[0.1, 0.1, 0.1, 1.0, 1.0])
    first = one.check(np.array([1.0, 1.5, 0.0, 2.0, 1.0]), LAST, state=STATE)
    assert first.tolist() == pytest.approx([0.1, 1.1, 0.0, 2.0, 1.0]), "from rest"
    second = one.check(np.array([1.0, 1.5, 0.0, 2.0, 1.0]), first, state=STATE)
    assert second.tolist() == pytest.approx([0.2, 1.3, 0.0, 2.0, 1.0]), "j0 went 0.1, now it may go 0.2"
    one.reset()
    assert one.check(np.array([0.0, 2.0, 0.0, 2.0, 1.0]), second, state=STATE)[1] == pytest.approx(1.4), "at rest again"


def test_a_fork_takes_the_velocity_along() -> None:
    one, other = guard(acceleration=[0.1] * 5), guard(acceleration=[0.1] * 5)
    one.check(np.array([0.1, 1.1, 0, 0, 1]), LAST, state=STATE)
    other.load_state(one.save_state())
    last, wanted = np.array([0.1, 1.1, 0, 0, 1], np.float32), np.array([1.0, 3.0, 0, 0, 1])
    assert other.check(wanted, last, state=STATE).tolist() == one.check(wanted, last, state=STATE).tolist()


def test_a_range_from_data_tightens_the_specs() -> None:
    one = guard(low=[-np.inf, -2.0, -np.inf, -1.0, -np.inf], high=[np.inf, 1.2, np.inf, 3.0, np.inf])
    sent = one.check(np.array([0.5, 2.5, 0.0, 8.0, 1.0]), LAST, state=STATE)
    assert sent.tolist() == pytest.approx([0.5, 1.2, 0.0, 3.0, 1.0])


def test_nothing_leads_out_of_the_workspace() -> None:
    one = guard(x_m=(-0.1, 0.05), y_m=(-1.0, 0.02), j0_rad=(0.5, 1.5))
    sent = one.check(np.array([1.0, 2.0, 1.0, 0.0, 1.0]), LAST, state=STATE)
    assert sent.tolist() == pytest.approx([0.5, 1.5, 0.4, 0.0, 1.0]), (
        "0.05 m are half a unit, 0.02 m 0.4 at 0.05 m a tick"
    )
    outside = np.array([0.2, 1.0, 0.0], np.float32)
    assert one.check(np.array([1.0, 1.0, 0, 0, 1]), LAST, state=outside)[0] == 0.0, "not further out"
    assert one.check(np.array([-1.0, 1.0, 0, 0, 1]), LAST, state=outside)[0] == -1.0, "back at full speed"


def test_a_dimension_that_counts_backwards_keeps_to_the_same_walls() -> None:
    back = replace(SPEC, dimensions=(replace(SPEC.dimensions[0], scale=-0.1), *SPEC.dimensions[1:]))
    one = Guard(back, limits(x_m=(-0.1, 0.05)), SEEN)
    assert one.check(np.array([-1.0, 1.0, 0, 0, 1]), LAST, state=STATE)[0] == pytest.approx(-0.5), "0.05 m forward"
    assert one.check(np.array([1.0, 1.0, 0, 0, 1]), LAST, state=STATE)[0] == pytest.approx(1.0), "0.1 m back"


def test_a_state_that_cannot_say_where_the_robot_is_is_a_hold() -> None:
    one = guard(x_m=(-0.1, 0.05))
    for state in (None, np.array([np.nan, 1.0, 0.0], np.float32)):
        sent = one.check(np.array([1.0, 2.0, 1.0, 0.0, -1.0]), LAST, state=state)
        assert sent.tolist() == SPEC.hold(LAST).tolist()
        assert "does not say where in its workspace" in one.take_note()


def test_without_limits_nothing_is_remembered() -> None:
    plain = Guard(SPEC)
    plain.check(np.array([1.0, 2.0, -1.0, 9.0, -1.0]), LAST)
    assert plain.save_state() == GuardState((False,), "")


def test_limits_go_into_a_file_and_come_back(tmp_path) -> None:
    path = tmp_path / "limits.json"
    velocity, low = [0.2, np.inf, 0.4, np.inf, np.inf], [-np.inf, -2, -np.inf, -1, -np.inf]
    limits(velocity=velocity, low=low, x_m=(-0.1, 0.05)).write(path)
    again = GuardLimits.read(path)
    assert again.caps.velocity.tolist() == velocity
    assert again.low.tolist() == low
    assert again.workspace == {"x_m": (-0.1, 0.05)}
    data = json.loads(path.read_text())
    for place, value, says in (
        (("dimensions", "dx", "velocity"), -1, "dx, velocity"),
        (("dimensions", "dx", "velocity"), "fast", "dx, velocity"),
        (("dimensions", "dx"), {}, "not the limits"),
        (("workspace", "x_m"), [2, 1], "leaves no room"),
        (("workspace", "x_m"), [2], "not the limits"),
    ):
        broken = json.loads(json.dumps(data))
        inner = broken
        for name in place[:-1]:
            inner = inner[name]
        inner[place[-1]] = value
        path.write_text(json.dumps(broken))
        with pytest.raises(EpisodeDataError, match=says):
            GuardLimits.read(path)


def test_limits_of_another_robot_are_refused() -> None:
    for wrong, says in (
        (GuardLimits(names=("j0",), low=FREE, high=FREE, caps=limits().caps), "The limits are of j0"),
        (limits(z_m=(0, 1)), "limits z_m, which no action moves"),
    ):
        with pytest.raises(SpecMismatchError, match=says):
            Guard(SPEC, wrong, SEEN)


def test_limits_from_data_are_its_quantiles() -> None:
    steps = np.arange(101)
    actions = np.zeros((101, 5), np.float32)
    actions[:, 0] = steps / 100  # a delta of 0 to 1
    actions[:, 1] = steps**2 / 10_000  # a target whose change grows from .0001 to .0199
    actions[:, 3] = steps - 50  # a torque of -50 to 50
    states = np.stack([steps / 10, steps, -steps], axis=1).astype(np.float32)
    found = limits_from([(states, actions)], SPEC, SEEN, 1.0)
    assert found.caps.velocity.tolist() == pytest.approx([1.0, 0.0199, 2e-6, np.inf, np.inf], rel=1e-4)
    assert found.caps.acceleration.tolist() == pytest.approx([0.01, 0.0002, 2e-6, np.inf, np.inf], rel=1e-2)
    assert found.low.tolist() == pytest.approx([-np.inf, 0.0, -np.inf, -50, -np.inf])
    assert found.high.tolist() == pytest.approx([np.inf, 1.0, np.inf, 50, np.inf])
    assert found.workspace == {"x_m": (0.0, 10.0), "j0_rad": (0.0, 100.0), "y_m": (-100.0, 0.0)}
    assert limits_from([(states, actions)], SPEC, SEEN, 0.9).caps.velocity[0] == pytest.approx(0.91, abs=0.011)


WALK = {
    Sign.ON_TIME: lambda g: g.check(np.zeros(5), LAST),
    Sign.LATE: lambda g: late(g, Sign.LATE),
    Sign.VERY_LATE: lambda g: late(g, Sign.VERY_LATE),
    Sign.DEAD: lambda g: late(g, Sign.DEAD),
    Sign.BAD: lambda g: g.check(None, LAST),
    Sign.BAD_AGAIN: lambda g: (g.check(None, LAST), g.check(None, LAST)),
    Sign.BROKEN: lambda g: g.latch("broken"),
    Sign.RELEASED: lambda g: g.release("Ann"),
}
MODES = {
    GuardMode.MOVING: Sign.ON_TIME,
    GuardMode.SLOWED: Sign.LATE,
    GuardMode.HOLDING: Sign.VERY_LATE,
    GuardMode.LATCHED: Sign.BROKEN,
}


def late(one, sign):
    one.late(Lateness(sign, "observation late"))
    sent = one.check(np.array([1.0, 2.0, 1.0, 5.0, -1.0]), LAST)
    one.late(Lateness(Sign.ON_TIME, ""))
    return sent


@pytest.mark.parametrize(("mode", "sign"), list(itertools.product(GuardMode, Sign)))
def test_the_whole_table_is_walked(mode: GuardMode, sign: Sign) -> None:
    one = Guard(SPEC)
    WALK[MODES[mode]](one)
    assert one.mode == mode
    WALK[sign](one)
    assert one.mode == TRANSITIONS[mode, sign]
    assert one.latched is (one.mode == GuardMode.LATCHED)
    if one.latched:
        assert one.check(np.ones(5), LAST).tolist() == SPEC.hold(LAST).tolist(), "nothing moves any more"


def test_what_the_table_says_in_words() -> None:
    assert len(TRANSITIONS) == len(GuardMode) * len(Sign)
    after = {sign: TRANSITIONS[GuardMode.MOVING, sign] for sign in Sign}
    assert after[Sign.LATE] == "slowed"
    assert after[Sign.VERY_LATE] == after[Sign.BAD] == "holding"
    assert after[Sign.DEAD] == after[Sign.BAD_AGAIN] == after[Sign.BROKEN] == "latched"
    out = {sign for sign in Sign if TRANSITIONS[GuardMode.LATCHED, sign] != "latched"}
    assert out == {Sign.RELEASED}, "nothing but a release lifts the latch"


def test_what_lateness_leaves_of_an_action() -> None:
    one = Guard(SPEC)
    assert late(one, Sign.LATE).tolist() == [0.5, 1.5, 0.5, 5.0, -1.0], "half the way; torque and gripper as they are"
    assert one.take_note() == "half speed: observation late"
    assert late(one, Sign.VERY_LATE).tolist() == SPEC.hold(LAST).tolist()
    assert late(one, Sign.DEAD).tolist() == SPEC.hold(LAST).tolist()
    assert one.reason == "observation late"


@pytest.mark.parametrize(
    ("age_ticks", "sign"),
    [
        (1.9, Sign.ON_TIME),
        (2, Sign.LATE),
        (4.9, Sign.LATE),
        (5, Sign.VERY_LATE),
        (19.9, Sign.VERY_LATE),
        (20, Sign.DEAD),
    ],
)
def test_every_source_is_late_by_its_own_interval(age_ticks: float, sign: Sign) -> None:
    seen = Watchdog(0.1)
    seen.start(3.0)
    assert seen.worst(3.0 + 0.1 * age_ticks).sign == sign
    judging = Watchdog(0.1)
    judging.judged(0.1 * age_ticks)
    assert judging.worst(0.0).sign == sign
    policy = Watchdog(0.1)
    policy.answered(actions=8)
    policy.due(True, 10.0)
    now = 10.0 + 0.8 * (age_ticks - 1)  # due at once is one interval after the answer before
    policy.observed(now)
    assert policy.worst(now).sign == sign
    policy.due(True, now)
    assert policy.worst(now).sign == sign, "it is late from the tick at which it was due"
    policy.due(False, now)
    assert policy.worst(now).sign == Sign.ON_TIME


def test_who_is_late_is_said_with_numbers() -> None:
    dog = Watchdog(0.05)
    assert dog.worst(0.35) == (Sign.VERY_LATE, "observation 0.350 s, 7.0 times the 0.050 s expected")


def test_a_token_is_needed_where_one_was_set() -> None:
    one = Guard(SPEC, token="secret")
    one.latch("door opened")
    for token in ("", "Secret", "geheim\u00e9"):
        with pytest.raises(FailsightError, match=r"Ann gave a wrong token; the robot stays latched \(door opened\)"):
            one.release("Ann", token)
    assert one.latched
    one.release("Ann", "secret")
    assert not one.latched


def test_who_only_watches_says_what_a_guard_would_have_done() -> None:
    one = Onlooker(SPEC, limits(velocity=[0.2] * 5), SEEN)
    wild = np.array([5.0, 1.0, 0.0, 0.0, 1.0])
    assert one.check(wild, LAST, state=STATE).tolist() == wild.tolist()
    assert one.take_note().startswith("not done, as nothing acts: clipped: dx 5 to 1; limited: dx 1 to 0.2")
    for _ in range(3):
        one.check(np.full(5, np.nan), LAST)
    assert not one.latched
    assert late(one, Sign.DEAD).tolist() == [1.0, 2.0, 1.0, 5.0, -1.0]
    assert (one.latched, one.mode) == (False, "moving")
