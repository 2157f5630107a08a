"""Every window of time follows the robot's rate and the tasks' horizon; on the tabletop nothing changes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hazards import survival

from failsight.core.errors import BundleError, CalibrationError
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.timing import steps_in
from failsight.core.types import Event, PolicyOutput, Step
from failsight.evaluation.survival import TimeRows, brier_draws, windows_of
from failsight.labels.driving import DriveLabeler
from failsight.labels.events import EventLabeler
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.dataset import LabelledSequence, build_sequences, permute_labels, shared_edges
from failsight.predictors.fit_recurrent import RecurrentOptions, fit_recurrent, merge_members
from failsight.predictors.hazard import BINS, EDGES, SURVIVES, bin_labels, edges_for, middles_of
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.signals.bank import SIGNAL_NAMES, SignalBank, replay_signals
from failsight.sims.tabletop import scene
from failsight.sims.tabletop.env import ACTION_SPEC, STATE_NAMES
from failsight.sims.tabletop.tasks import HORIZON

TABLETOP = (0, 5, 10, 20, 40, 80, 160)


def arm(rate_hz):
    return replace(ACTION_SPEC, rate_hz=rate_hz)


def test_a_time_in_steps():
    """Halves go up; 20 Hz where the rate is not known."""
    assert [steps_in(s, 20) for s in (0.25, 0.5, 1, 2, 0.01)] == [5, 10, 20, 40, 1]
    assert [steps_in(s, 2.5) for s in (0.25, 1, 1.2, 2)] == [1, 3, 3, 5]
    assert steps_in(1, 0) == 20
    assert steps_in(0.1, 2.5, least=3) == 3


@pytest.mark.parametrize(
    ("rate", "horizon", "edges", "middles"),
    [
        (20, 160, TABLETOP, (2.5, 7.5, 15, 30, 60, 110)),  # the tabletop: ratio (160 / 20)^(1/3) = 2
        (0, 0, TABLETOP, (2.5, 7.5, 15, 30, 60, 110)),  # a log that says neither
        (20, 520, (0, 5, 10, 20, 59, 176, 520), (2.5, 7.5, 15, 39.5, 117.5, 315.5)),  # LIBERO: ratio 26^(1/3) = 2.962
        (80, 200, (0, 20, 40, 80, 109, 147, 200), (10, 30, 60, 94.5, 128, 161)),  # Meta-World: 2.5^(1/3) = 1.357
        (2.5, 40, (0, 1, 2, 3, 6, 16, 40), (0.5, 1.5, 2.5, 4.5, 11, 25.5)),  # navigation: 16^(1/3) = 2.52
        (100, 40, (0, 5, 10, 20, 25, 32, 40), (2.5, 7.5, 15, 22.5, 28.5, 33.5)),  # over within half a second
        (20, 1, (0, 1, 2, 3, 4, 5, 6), (0.5, 1.5, 2.5, 3.5, 4.5, 5.125)),  # bins stay bins
    ],
)
def test_bins_by_hand(rate, horizon, edges, middles):
    assert edges_for(rate, horizon) == edges
    np.testing.assert_array_equal(middles_of(edges), np.array(middles, np.float32))


def test_the_tabletop_keeps_every_number():
    assert (scene.RATE_HZ, HORIZON) == (20, 160)
    assert edges_for(ACTION_SPEC.rate_hz, HORIZON) == EDGES == TABLETOP
    assert TriggerRule().at(ACTION_SPEC.rate_hz) == TriggerRule()
    assert (TriggerRule(window=7, needed=4, blind_steps=3)).at(20.0) == TriggerRule(window=7, needed=4, blind_steps=3)
    assert windows_of(EDGES) == (5, 10, 20, 40, 80)
    time = np.array([0, 4.9, 5, 19, 20, 79, 80, 1e6, np.inf, np.nan])
    assert bin_labels(time).tolist() == [0, 0, 1, 2, 3, 4, 5, 5, SURVIVES, -1]
    assert EventLabeler({}, ACTION_SPEC)._span == 20
    bank = SignalBank(ACTION_SPEC, ObservationSpec(state=STATE_NAMES, cameras=()))
    lengths = [w._length for w in (bank._patterns._signs, bank._patterns._path, bank._patterns._grip,
                                   bank._patterns._sent, bank._uncertainty._actions, bank._uncertainty._spreads)]  # fmt: skip
    assert lengths == [20, 21, 40, 5, 10, 20]
    assert bank._patterns._ahead == 5


def test_labels_fall_into_the_bins_of_their_robot():
    """30 steps ahead are 1.5 s on a tabletop (fourth bin) and 0.375 s at 80 Hz (second)."""
    assert bin_labels(np.array([30.0])).tolist() == [3]
    assert bin_labels(np.array([30.0]), edges_for(80, 200)).tolist() == [1]
    assert bin_labels(np.array([2.0, 3.0, 30.0]), edges_for(2.5, 40)).tolist() == [2, 3, 5]
    hazard = np.array([0, 0, 0, 0, 0, 0.5])
    assert survival(hazard).time_to_failure == 110
    assert survival(hazard, edges_for(80, 200)) == (0.5, 161)


def test_a_trigger_lasts_as_long_at_any_rate():
    """3 of 5 ticks at 20 Hz are 0.15 of 0.25 s; released after 0.4 s, blind for 0.5 s."""
    fast = TriggerRule().at(80)
    assert (fast.needed, fast.window, fast.release_steps, fast.blind_steps) == (12, 20, 32, 40)
    slow = TriggerRule().at(2.5)
    assert (slow.needed, slow.window, slow.release_steps, slow.blind_steps) == (1, 1, 1, 2)
    assert TriggerRule().at(0) == TriggerRule()


def test_a_labelled_second_is_a_second():
    hit = Event(step=100, kind="contact", subject="gripper", other="post", value=50.0, normal=(1.0, 0.0, 0.0))
    actions = np.tile(np.array([1.0, 0, 0, 0, 0, 0, -1.0], np.float32), (120, 1))
    states = np.zeros((120, len(STATE_NAMES)), np.float32)
    for rate, first in ((20, 80), (80, 20), (10, 90)):
        found = EventLabeler({"t": "cube"}, arm(rate)).label("t", states, actions, [hit], False)
        assert np.flatnonzero(found.dimension[:, 0])[[0, -1]].tolist() == [first, 100]
    speeds = np.tile(np.array([[0.2, 0.0, 0.0]], np.float32), (40, 1))
    for rate, first in ((2.5, 27), (20, 6)):  # 1.2 s: 3 steps, 24 steps
        spec = SimpleNamespace(rate_hz=rate)
        bump = replace(hit, step=30)
        found = DriveLabeler(spec).label("t", speeds, speeds, [bump], False)
        assert np.flatnonzero(found.dimension[:, 0])[[0, -1]].tolist() == [first, 30]


def test_signals_look_back_as_long_at_any_rate():
    """The same motion, sampled four times as often, has the same gripper toggles and reversals: all within a second."""

    def steps(rate, seconds=3.0):
        count, out = int(seconds * rate), []
        for t in range(count):
            s = t / rate
            action = np.zeros(7, np.float32)
            action[0], action[6] = np.sign(np.sin(2 * np.pi * s + 1.0)), 1.0 if int(s * 2) % 2 else -1.0
            state = np.zeros(len(STATE_NAMES), np.float32)
            state[0] = np.cos(2 * np.pi * s)
            chunk = np.tile(action, (4, 1))
            out.append(
                Step(index=t, state=state, action=action, output=PolicyOutput(chunk=chunk), cursor=0, replan=True)
            )
        return out

    spec = ObservationSpec(state=STATE_NAMES, cameras=())
    found = {rate: replay_signals(steps(rate), arm(rate), spec)[-1] for rate in (20, 80)}
    for name in ("gripper_toggles", "progress"):
        column = SIGNAL_NAMES.index(name)
        assert found[80][column] == pytest.approx(found[20][column], abs=0.02), name
    reversals = SIGNAL_NAMES.index("reversals_x")
    assert found[20][reversals] * 19 == pytest.approx(found[80][reversals] * 79) == 2
    assert found[20][SIGNAL_NAMES.index("gripper_toggles")] == 3  # at 1.5, 2.0 and 2.5 s


def sequences(edges=EDGES, count=12, steps=30):
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        onset = 20 if i % 2 else None
        left = np.full(steps, np.inf) if onset is None else np.maximum(onset - np.arange(steps), 0).astype(float)
        signals = rng.normal(size=(steps, 3)).astype(np.float32) + (i % 2)
        found.append(
            LabelledSequence(
                ticket=i,
                task="t",
                condition="none",
                signals=signals,
                hidden=None,
                failed=onset is not None,
                bins=bin_labels(left, edges),
                kind=0 if onset else -1,
                dimension=np.zeros((steps, 0), bool),
                onset=onset,
                edges=edges,
            )
        )
    return found


def test_a_fitted_predictor_keeps_its_bins_and_reads_them_again():
    options = RecurrentOptions(members=1, units=4, epochs=1, batch=4, use_hidden=False)
    log = np.zeros(3, bool)
    edges = edges_for(80, 200)
    plain, fast = (fit_recurrent(sequences(e), sequences(e), options, log=log) for e in (EDGES, edges))
    assert (plain.edges, fast.edges) == (EDGES, edges)
    again = RecurrentPredictor(fast.arrays)
    assert merge_members([fast, fast]).edges == again.edges == edges
    ours = {**fast.arrays, "edges": np.array(EDGES)}
    late, soon = RecurrentPredictor(fast.arrays), RecurrentPredictor(ours)
    risks = [p.update(np.ones(3, np.float32), None) for p in (late, soon)]
    assert risks[0].p_fail == risks[1].p_fail
    expected = late.lost @ np.array([10, 30, 60, 94.5, 128, 161], np.float32) / risks[0].p_fail
    assert risks[0].time_to_failure == pytest.approx(expected, rel=1e-6)
    assert risks[1].time_to_failure == pytest.approx(
        soon.lost @ np.array([2.5, 7.5, 15, 30, 60, 110], np.float32) / risks[1].p_fail, rel=1e-6
    )
    old = {name: value for name, value in fast.arrays.items() if name != "edges"}
    assert RecurrentPredictor(old).edges == EDGES  # of a bundle from before
    for bad in ([0, 5, 10], [0, 5, 5, 20, 40, 80, 160], [1, 5, 10, 20, 40, 80, 160]):
        with pytest.raises(BundleError, match="growing steps from 0"):
            RecurrentPredictor({**fast.arrays, "edges": np.array(bad)})


def test_episodes_of_other_rates_are_not_mixed():
    both = [*sequences(), *sequences(edges_for(80, 200))]
    with pytest.raises(CalibrationError, match="other rates"):
        shared_edges(both)
    unknown = [replace(s, onset=None) for s in both]
    assert shared_edges(unknown)[-1] == 200  # no onset is known, so no bin was either
    moved = permute_labels(sequences(edges_for(80, 200)), 1)
    for s in moved:
        if s.onset is not None:
            expected = bin_labels(np.maximum(s.onset - np.arange(30), 0).astype(float), edges_for(80, 200))
            assert s.bins.tolist() == expected.tolist()


def test_a_run_gives_its_rate_and_its_longest_horizon():
    spec = ActionSpec(
        dimensions=(Dimension(name="x", kind="velocity", unit=""),), frame="", rate_hz=2.5, gripper_closed_sign=1
    )
    metas = [
        SimpleNamespace(ticket=i, task="t", condition="none", instruction="go", horizon=h)
        for i, h in enumerate((30, 40))
    ]
    episodes = [SimpleNamespace(meta=m, signals=np.zeros((5, 1), np.float32), hidden=None) for m in metas]
    run = SimpleNamespace(meta=SimpleNamespace(action_spec=spec), episodes=metas, read=lambda tickets: episodes)
    label = SimpleNamespace(success=False, time_to_failure=np.array([4.0, 3, 2, 1, 0]), failure_type=None, onset=4,
                            dimension=np.zeros((5, 1), bool))  # fmt: skip
    for sequence in build_sequences(run, {0: label, 1: label}):
        assert sequence.edges == (0, 1, 2, 3, 6, 16, 40)
        assert sequence.bins.tolist() == [3, 3, 2, 1, 0]


def test_lost_within_is_judged_at_the_robots_own_windows():
    """50 steps ahead: lost within 59 of LIBERO's windows but not within 40 of the tabletop's."""
    rows = TimeRows(np.array([0]), np.array([0]), np.array([50.0]), np.array([50.0]), np.zeros((1, BINS - 1)))
    one = np.ones((1, 1))
    assert brier_draws(rows, one).tolist() == [1 / 5]
    assert brier_draws(rows, one, windows_of(edges_for(20, 520))).tolist() == [2 / 5]
