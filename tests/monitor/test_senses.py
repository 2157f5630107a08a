"""Unknown is a stated blindness, never silence: every way not to see, its reason, and the trigger after `blind_steps`."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import recurrent_arrays

from failsight.core.types import Risk, Task
from failsight.monitor.monitor import RiskMonitor
from failsight.monitor.senses import FROZEN_AFTER, Senses, Usual, usual_of
from failsight.monitor.thresholds import Thresholds, fit_thresholds
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.runtime.loop import Loop
from failsight.signals.bank import SIGNAL_NAMES, SignalBank
from failsight.testing import fakes
from failsight.testing.checks import make_steps

TASK = Task(id="home", suite="point", instruction="go home", horizon=60)
RULE = TriggerRule(blind_steps=4)
ALWAYS = Usual(always=(True,) * len(SIGNAL_NAMES), stuck_after=(0,) * len(SIGNAL_NAMES))
MOTION = np.array([0.5, 0.0, 0.0, -1.0], np.float32)


def make_monitor(thresholds=None, usual=None, predictor=None):
    return RiskMonitor(
        predictor or RecurrentPredictor(recurrent_arrays(hidden=6)),
        SignalBank(fakes.ACTIONS, fakes.OBSERVATIONS),
        RULE,
        thresholds or Thresholds.fixed(2.0),
        senses=Senses(SIGNAL_NAMES, fakes.ACTIONS, usual),
    )


def steps(count=30):
    return [replace(s, executed=MOTION if s.index else None) for s in make_steps(count, 4, 4)]


def judge(monitor, records):
    monitor.reset(TASK)
    return [monitor.step(record) for record in records]


def edited(at, change, count=30):
    """Steps with a change to all from `at` on."""
    return [change(s) if s.index >= at else s for s in steps(count)]


def output(**parts):
    return lambda s: replace(s, output=replace(s.output, **parts), replan=True)


def nan_like(name):
    return lambda s: output(**{name: np.full_like(getattr(s.output, name), np.nan)})(s)


def state(value):
    return lambda s: replace(s, state=np.asarray(value, np.float32))


CASES = [
    ("nan chunk", nan_like("chunk"), "the policy's output is not finite", True),
    ("nan hidden", nan_like("hidden"), "the policy's output is not finite", True),
    ("nan samples", nan_like("samples"), "the policy's output is not finite", True),
    ("nan ensemble", nan_like("members"), "the policy's output is not finite", True),
    ("no samples any more", output(samples=None, members=None), "signals are missing: epistemic_spread", False),
    ("nan state", state([0.1, np.nan, 0.0, 1.0]), "the state is not finite", False),
    ("past its chunk", lambda s: replace(s, cursor=5), "past the end of its chunk of 5 actions", False),
]


@pytest.mark.parametrize(("change", "reason", "at_once"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_monitor_that_cannot_see_says_so_and_triggers(change, reason, at_once):
    verdicts = judge(make_monitor(usual=ALWAYS), edited(10, change))
    assert not any(v.blind or v.trigger for v in verdicts[:10])
    assert all(reason in v.blind for v in verdicts[10:])
    assert [v.trigger for v in verdicts[10:14]] == ([True] * 4 if at_once else [False] * 3 + [True])
    assert reason in verdicts[13].why
    if "past" not in reason:
        assert all(np.isnan(v.risk.p_fail) and np.isnan(v.risk.judged) for v in verdicts[10:]), "nothing, and not 0"


def test_a_good_episode_is_never_blind():
    assert not any(v.blind for v in judge(make_monitor(usual=ALWAYS), steps()))


def test_one_blind_tick_is_said_and_forgotten():
    records = steps()
    records[10] = replace(records[10], state=np.full(4, np.nan, np.float32))
    verdicts = judge(make_monitor(), records)
    assert verdicts[10].blind
    assert not any(v.trigger for v in verdicts)


class Mute:
    """A predictor that gives no score."""

    def reset(self, task):
        pass

    def update(self, signals, hidden):
        return Risk(p_fail=float("nan"))

    def save_state(self):
        return {}

    def load_state(self, state):
        pass


def test_no_score_is_blind():
    verdicts = judge(make_monitor(predictor=Mute()), steps(6))
    assert {v.blind for v in verdicts} == {"the predictor gives no score"}
    assert [v.trigger for v in verdicts] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    ("thresholds", "reason"),
    [
        (Thresholds.fixed(float("nan")), "the threshold is nan"),
        (Thresholds.fixed(float("inf")), "the threshold is inf"),
        (fit_thresholds(list(np.linspace(0, 1, 30)), ["other"] * 30, 0.1), "uncalibrated: 10 more successes of home"),
    ],
)
def test_no_threshold_is_blind(thresholds, reason):
    verdicts = judge(make_monitor(thresholds), steps(6))
    assert all(reason in v.blind for v in verdicts)
    assert [v.trigger for v in verdicts] == [False] * 3 + [True] * 3
    assert verdicts[-1].why.startswith(f"blind for 6 ticks: {reason}")


def test_steps_twice_late_or_missing_are_said_and_never_judged_twice():
    records = steps()
    plain = judge(make_monitor(), records)
    order = [*range(6), 5, 2, *range(6, 10), *range(12, 20)]
    verdicts = dict(zip([*range(len(order))], judge(make_monitor(), [records[i] for i in order]), strict=True))
    assert "step 5 came twice or too late: step 6 is due" in verdicts[6].blind
    assert "step 2 came twice" in verdicts[7].blind
    assert [verdicts[i + 2].risk.p_fail for i in range(6, 10)] == [v.risk.p_fail for v in plain[6:10]]
    assert "2 steps before step 12 are missing" in verdicts[12].blind
    assert not verdicts[13].blind


def test_a_step_that_comes_again_and_again_is_a_trigger():
    record = steps(1)[0]
    verdicts = judge(make_monitor(), [record] * 6)
    assert [v.trigger for v in verdicts] == [False] * 4 + [True] * 2


def test_time_that_stands_still_or_leaps_is_said():
    times = [0.0, 0.05, 0.10, 0.10, 0.20, 0.60, 0.65]
    records = [replace(s, time_s=t) for s, t in zip(steps(7), times, strict=True)]
    blind = [v.blind for v in judge(make_monitor(), records)]
    assert "as old as the one before (0.100 s)" in blind[3]
    assert "came 0.400 s after the one before, due after 0.050 s" in blind[5]
    assert [bool(b) for b in blind] == [False, False, False, True, False, True, False]


@pytest.mark.parametrize(
    ("executed", "blind"),
    [([0.5, 0, 0, -1.0], True), ([0, 0, 0, -1.0], False), ([0.001, 0, 0, 1.0], False)],
)
def test_a_frozen_state_counts_only_while_motion_is_commanded(executed, blind):
    def freeze(s):
        return replace(s, state=np.array([0.1, 0.2, 0.3, 1.0], np.float32), executed=np.array(executed, np.float32))

    verdicts = judge(make_monitor(), edited(10, freeze))
    first = 10 + FROZEN_AFTER
    assert not any(v.blind for v in verdicts[:first])
    assert [bool(v.blind) for v in verdicts[first:]] == [blind] * (30 - first)
    assert verdicts[first + 3].trigger is blind


def test_a_state_array_that_a_robot_reuses_is_not_taken_for_frozen():
    buffer = np.zeros(4, np.float32)
    monitor = make_monitor()
    monitor.reset(TASK)
    for s in steps():
        buffer[:] = s.state
        assert not monitor.step(replace(s, state=buffer)).blind


def test_absolute_targets_that_move_are_motion():
    spec = replace(
        fakes.ACTIONS, dimensions=tuple(replace(d, kind="absolute", hold=None) for d in fakes.ACTIONS.dimensions)
    )
    for moving in (True, False):
        senses = Senses((), spec)
        found = []
        for t in range(12):
            target = np.array([0.1 * t if moving else 0.4, 0, 0, 1], np.float32)
            record = replace(steps(1)[0], index=t, executed=target if t else None, state=np.ones(4, np.float32))
            found.append(senses.look(record, np.zeros(0))[1])
        assert bool(found[-1]) is moving


def test_stuck_is_twice_the_longest_run_of_training_and_ten():
    """Runs of 1, 2 and always: 2 * 1 + 10 = 12, 2 * 2 + 10 = 14, never."""
    t = np.arange(40.0)
    episode = np.stack([t, t // 2, np.zeros(40)], 1)
    usual = usual_of([episode, episode])
    assert usual == Usual(always=(True,) * 3, stuck_after=(12, 14, 0))
    assert Usual.from_dict(usual.as_dict(), 3) == usual
    senses, found = Senses(("a", "b", "c"), None, usual), []
    for index in range(60):
        row = np.array([min(index, 20), index, 0.0])
        found.append(senses.look(replace(steps(1)[0], index=index, state=np.full(4, index, np.float32)), row)[1])
    assert [bool(f) for f in found] == [False] * 31 + [True] * 29, "the twelfth tick of the value 20 is step 31"
    assert found[-1] == "signals are stuck at one value: a"


def test_a_signal_training_lacked_now_and_then_is_not_missed():
    sometimes = np.array([[1.0, np.nan], [2.0, 3.0]])
    assert usual_of([sometimes, sometimes]).always == (True, False)


def test_blindness_is_saved_and_loaded_with_the_episode():
    records = edited(10, lambda s: replace(s, state=np.ones(4, np.float32)))
    monitor = make_monitor(usual=ALWAYS)
    whole = judge(monitor, records)
    for cut in (9, 12, 17):
        judge(monitor, records[:cut])
        saved = monitor.save_state()
        judge(monitor, steps(5))
        monitor.reset(TASK)
        monitor.load_state(saved)
        rest = [monitor.step(r) for r in records[cut:]]
        assert [(v.blind, v.trigger) for v in rest] == [(v.blind, v.trigger) for v in whole[cut:]]


class DeadSensor(fakes.PointSim):
    """The state freezes at step 3 while the point goes on."""

    def step(self, action):
        observation, *rest = super().step(action)
        if self._step == 3:
            self._dead = observation["observation.state"]
        if self._step >= 3:
            observation = {"observation.state": self._dead.copy()}
        return observation, *rest


def test_a_dead_sensor_in_the_loop_is_blindness_and_then_a_trigger():
    sim = DeadSensor()
    policy = fakes.PointPolicy(hidden=6)
    loop = Loop(sim, policy, monitor=make_monitor())
    key = fakes.EpisodeKey(seed=3, task="home", episode=1)
    loop.start(key)
    loop.run()
    blind = [row.step for row in loop.trace.rows if "frozen" in row.blind]
    assert blind[0] == 3 + FROZEN_AFTER
    assert loop.trace.trigger_step == 3 + FROZEN_AFTER + 3
