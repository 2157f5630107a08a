from dataclasses import replace

import numpy as np
import pytest

from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.types import PolicyOutput, Step
from failsight.signals.bank import SIGNAL_NAMES, SIGNAL_UNITS, SignalBank, bank_columns, replay_signals
from failsight.signals.patterns import PatternSignals
from failsight.signals.uncertainty import UncertaintySignals
from failsight.signals.window import Window
from failsight.testing.checks import make_steps
from failsight.testing.fakes import ACTIONS, OBSERVATIONS

U = {name: i for i, name in enumerate(UncertaintySignals.names)}
P = {name: i for i, name in enumerate(PatternSignals.names)}


def steps_of(actions, states=None, chunk=None, **output):
    chunk = np.zeros((5, 4), np.float32) if chunk is None else chunk
    result = PolicyOutput(chunk=chunk, **output)
    states = np.zeros((len(actions), 4), np.float32) if states is None else states
    return [
        Step(index=t, state=states[t], action=np.asarray(a, np.float32), output=result, cursor=0, replan=t == 0)
        for t, a in enumerate(actions)
    ]


def run(signal, steps):
    signal.reset()
    out = np.zeros((len(steps), len(signal.names)))
    for row, step in zip(out, steps, strict=True):
        signal.update(step, row)
    return out


def test_there_are_six_uncertainty_signals_with_units():
    assert UncertaintySignals.names == SIGNAL_NAMES[:6]
    assert len(SIGNAL_UNITS) == len(SIGNAL_NAMES) == 17


def test_uncertainty_by_hand():
    samples = np.zeros((2, 5, 4), np.float16)
    samples[1, :, 0] = 2.0  # variance 1 along x, 0 along y and z -> mean 1/3
    members = np.zeros((2, 5, 4), np.float16)
    members[1, :, :3] = 2.0  # variance 1 along all three
    out = run(
        UncertaintySignals(ACTIONS.scalable),
        steps_of([[3, 4, 0, 1], [3, 4, 1, -1]], samples=samples, members=members),
    )
    assert out[0, U["epistemic_spread"]] == pytest.approx(1.0)
    assert out[0, U["action_magnitude"]] == pytest.approx(5.0), "the gripper is not part of the magnitude"
    assert out[0, U["action_variance"]] == pytest.approx(1 / 3)
    assert out[0, U["smoothness"]] == 0
    assert out[1, U["smoothness"]] == pytest.approx(1.0)
    assert out[1, U["max_joint_variance"]] == pytest.approx(0.25)


def test_trend_is_the_slope_of_the_spread():
    signal, rows = UncertaintySignals(ACTIONS.scalable), []
    signal.reset()
    for t in range(6):
        members = np.zeros((2, 5, 4), np.float16)
        members[1, :, :3] = 2 * t
        out = np.zeros(6)
        step = steps_of([[0, 0, 0, 1]], members=members)[0]
        signal.update(step, out)
        rows.append(out[U["trend"]])
    assert rows[:2] == [0, 0]
    assert rows[-1] == pytest.approx(1.0)


def test_a_policy_without_samples_gives_nan_not_zero():
    out = run(UncertaintySignals(ACTIONS.scalable), steps_of([[1, 0, 0, 1]]))
    assert np.isnan(out[0, [U["epistemic_spread"], U["action_variance"]]]).all()
    assert np.isfinite(out[0, U["action_magnitude"]])


def test_oscillation_shows_as_reversals_per_axis():
    actions = [[(-1) ** t, 1, 0, 1] for t in range(20)]
    out = run(PatternSignals(ACTIONS, OBSERVATIONS), steps_of(actions))
    assert out[-1, P["reversals_x"]] == 1.0
    assert out[-1, P["reversals_y"]] == 0.0


def test_going_back_and_forth_is_no_progress():
    t = np.arange(30)
    straight = np.stack([0.01 * t, 0 * t, 0 * t, 1 + 0 * t], 1).astype(np.float32)
    circle = np.stack([np.sin(t * 2 * np.pi / 20), np.cos(t * 2 * np.pi / 20), 0 * t, 1 + 0 * t], 1).astype(np.float32)
    actions = [[0, 0, 0, 1]] * 30
    signal = PatternSignals(ACTIONS, OBSERVATIONS)
    assert run(signal, steps_of(actions, straight))[-1, P["progress"]] == pytest.approx(1.0, abs=1e-5)
    assert run(signal, steps_of(actions, circle))[-1, P["progress"]] == pytest.approx(0.0, abs=1e-5)


def test_gripper_toggles_are_counted():
    actions = [[0, 0, 0, 1 if t // 3 % 2 else -1] for t in range(12)]
    assert run(PatternSignals(ACTIONS, OBSERVATIONS), steps_of(actions))[-1, P["gripper_toggles"]] == 3


def test_commands_that_move_nothing_leave_a_residual():
    blocked = run(PatternSignals(ACTIONS, OBSERVATIONS), steps_of([[1, 0, 0, 1]] * 8))
    assert blocked[-1, P["command_residual"]] == pytest.approx(5 * 0.05)
    moving = np.zeros((8, 4), np.float32)
    moving[:, 0] = 0.05 * np.arange(8)
    free = run(PatternSignals(ACTIONS, OBSERVATIONS), steps_of([[1, 0, 0, 1]] * 8, moving))
    assert free[-1, P["command_residual"]] == pytest.approx(0, abs=1e-6)


def test_an_object_leaving_the_fingers_is_a_slip():
    states = np.zeros((4, 4), np.float32)
    states[:, 3] = [0.5, 0.5, 0.1, 0.1]
    out = run(PatternSignals(ACTIONS, OBSERVATIONS), steps_of([[0, 0, 0, 1]] * 4, states))
    assert out[:, P["slip"]].tolist() == pytest.approx([0, 0, 0.4, 0])
    assert out[-1, P["grip_gap"]] == pytest.approx(0.1)


def test_overlap_counts_actions_not_ticks_so_that_a_slowed_policy_does_not_disagree():
    """Two actions of 1, 2, 3, 4, 5 take four ticks at half speed; the next chunk goes on with 3, 4, 5."""
    first, second = np.zeros((5, 4), np.float32), np.zeros((5, 4), np.float32)
    first[:, 0], second[:, 0] = [1, 2, 3, 4, 5], [3, 4, 5, 9, 9]
    steps = [
        Step(index=t, state=np.zeros(4), action=first[c], output=PolicyOutput(chunk=first), cursor=c, replan=t == 0)
        for t, c in enumerate((0, 0, 1, 1))
    ]
    steps.append(
        Step(index=4, state=np.zeros(4), action=second[0], output=PolicyOutput(chunk=second), cursor=0, replan=True)
    )
    assert run(PatternSignals(ACTIONS, OBSERVATIONS), steps)[-1, P["overlap"]] == 0


def test_overlap_compares_the_same_future_steps():
    signal = PatternSignals(ACTIONS, OBSERVATIONS)
    signal.reset()
    first = np.tile(np.arange(5, dtype=np.float32)[:, None], (1, 4))
    out = np.zeros(len(signal.names))
    for t in range(2):
        signal.update(steps_of([[0, 0, 0, 1]], chunk=first)[0] if t == 0 else _again(first, t), out)
    signal.update(steps_of([[0, 0, 0, 1]], chunk=first[2:])[0], out)
    assert out[P["overlap"]] == 0, "a chunk that goes on as announced does not disagree"
    signal.update(steps_of([[0, 0, 0, 1]], chunk=first)[0], out)
    assert out[P["overlap"]] > 0


def _again(chunk, t):
    output = PolicyOutput(chunk=chunk)
    return Step(index=t, state=np.zeros(4, np.float32), action=chunk[t], output=output, cursor=t, replan=False)


def without(dimensions=(), entries=()):
    """The point robot without these action dimensions and state entries."""
    kept = tuple(d for d in ACTIONS.dimensions if d.name not in dimensions)
    names = tuple(name for name in OBSERVATIONS.state if name not in entries)
    return replace(ACTIONS, dimensions=kept), replace(OBSERVATIONS, state=names)


@pytest.mark.parametrize(
    ("dimensions", "entries", "absent"),
    [
        ((), (), ()),
        ((), ("gripper_open01",), ("grip_gap", "slip")),
        (("gripper",), ("gripper_open01",), ("gripper_toggles", "grip_gap", "slip", "gripper_split")),
        (("dz",), (), ("reversals_z", "command_residual")),
        ((), ("z_m",), ("progress", "command_residual", "low")),
        (("dx", "dy", "dz"), (), ("reversals_x", "reversals_y", "reversals_z", "command_residual", "overlap")),
    ],
)
def test_signals_a_robot_lacks_something_for_are_absent_and_the_others_as_before(dimensions, entries, absent):
    steps = make_steps(40, 4, 4)
    actions, observations = without(dimensions, entries)
    names = [column.name for column in bank_columns(actions, observations)] if actions.dimensions[1:] else []
    patterns = PatternSignals(actions, observations)
    assert patterns.names == tuple(name for name in PatternSignals.names if name not in absent)
    assert len(patterns.units) == len(patterns.names)
    assert not names or names == [name for name in SIGNAL_NAMES if name not in absent]
    dims = [i for i, d in enumerate(ACTIONS.dimensions) if d.name not in dimensions]
    states = [i for i, name in enumerate(OBSERVATIONS.state) if name not in entries]
    fewer = [replace(s, state=s.state[states], action=s.action[dims], output=_narrowed(s.output, dims)) for s in steps]
    whole, found = run(PatternSignals(ACTIONS, OBSERVATIONS), steps), run(patterns, fewer)
    same = [P[name] for name in patterns.names if name != "overlap" or "dz" not in dimensions]
    mine = [i for i, name in enumerate(patterns.names) if P[name] in same]
    assert np.array_equal(found[:, mine], whole[:, same])


def _narrowed(output, dims):
    samples = None if output.samples is None else output.samples[:, :, dims]
    members = None if output.members is None else output.members[:, :, dims]
    return replace(output, chunk=output.chunk[:, dims], samples=samples, members=members)


def test_a_wheeled_base_has_seven_signals_and_a_joint_arm_too():
    """Six of uncertainty and the overlap of chunks; joints may be absolute, and their bank saves and loads."""
    for kind in ("velocity", "absolute"):
        joints = tuple(Dimension(name=f"joint{i}", kind=kind, unit="rad", hold=0.0) for i in range(4))
        spec = ActionSpec(dimensions=joints, frame="joint", rate_hz=10, gripper_closed_sign=1)
        observations = ObservationSpec(state=("a", "b", "c", "d"), cameras=())
        assert [c.name for c in bank_columns(spec, observations)] == [*UncertaintySignals.names, "overlap"]
        steps = make_steps(30, 4, 4)
        whole, bank = replay_signals(steps, spec, observations), SignalBank(spec, observations)
        assert whole.shape == (30, 7)
        assert np.isfinite(whole).all()
        bank.reset()
        for step in steps[:11]:
            bank.update(step)
        other = SignalBank(spec, observations)
        other.load_state(bank.save_state())
        assert np.array_equal(other.update(steps[11]).astype(np.float32), whole[11])


def test_a_robot_that_moves_nothing_is_refused():
    actions, observations = without(("dx", "dy", "dz"))
    with pytest.raises(SpecMismatchError, match=r"none of the action dimensions \(gripper\) moves"):
        SignalBank(actions, observations)


def test_the_bank_saves_and_loads_mid_episode():
    steps = make_steps(40, 4, 4)
    whole = replay_signals(steps, ACTIONS, OBSERVATIONS)
    bank = SignalBank(ACTIONS, OBSERVATIONS)
    bank.reset()
    for step in steps[:17]:
        bank.update(step)
    state, other = bank.save_state(), SignalBank(ACTIONS, OBSERVATIONS)
    other.reset()
    other.load_state(state)
    rest = np.stack([other.update(s).astype(np.float32) for s in steps[17:]])
    assert np.array_equal(rest, whole[17:])


def test_a_window_is_contiguous_and_forgets():
    window = Window(3, 1)
    for value in range(5):
        window.push(np.array([value]))
    assert window.view()[:, 0].tolist() == [2, 3, 4]
    assert window.view().flags["C_CONTIGUOUS"]
    window.clear()
    assert len(window.view()) == 0
