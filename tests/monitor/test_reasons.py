"""What a verdict says of its own alarm is true at every tick, also while the alarm only lasts."""

import numpy as np
import pytest

from failsight.core.types import PolicyOutput, Risk, Step, Task
from failsight.monitor.monitor import LoggedSignals, RiskMonitor
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import TriggerRule

TASK = Task(id="t", suite="s", instruction="go", horizon=40)
RULE = TriggerRule(needed=2, window=3, release_steps=2, release_ratio=0.8)
"""On at two of three ticks at 0.5 or more, off after two ticks in a row at 0.4 or less."""


class Said:
    """A predictor that says what it is told to."""

    def __init__(self, p_fail, imminent=()):
        self._p_fail, self._imminent = p_fail, imminent

    def reset(self, task):
        self._at = -1

    def update(self, signals, hidden):
        self._at += 1
        imminent = self._imminent[self._at] if self._imminent else float("nan")
        return Risk(p_fail=self._p_fail[self._at], imminent=imminent)

    def save_state(self):
        return {}

    def load_state(self, state):
        pass


def step(index):
    action, state = np.zeros(2, np.float32), np.full(2, index, np.float32)
    output = PolicyOutput(chunk=np.zeros((1, 2), np.float32))
    return Step(
        index=index, state=state, action=action, output=output, cursor=0, replan=True, signals=np.array([float(index)])
    )


def verdicts(predictor, rule, count):
    monitor = RiskMonitor(predictor, LoggedSignals(("a",)), rule, Thresholds.fixed(0.5))
    monitor.reset(TASK)
    return [monitor.step(step(index)) for index in range(count)]


def test_the_reason_names_the_threshold_only_as_what_it_is():
    found = verdicts(Said([0.6, 0.7, 0.45, 0.45, 0.3, 0.3]), RULE, 6)
    assert [v.trigger for v in found] == [False, True, True, True, True, False]
    said = [v.why for v in found]
    assert said[0] == said[5] == ""
    assert said[1] == "failure likely, p_fail 0.70 >= 0.50"
    assert said[2] == "failure likely, p_fail 0.45 by now, on 2 of the last 3 ticks >= 0.50"
    for late in said[3:5]:
        assert "by now, the alarm stays until 2 ticks in a row are low enough (it began at 0.50)" in late
        assert ">=" not in late


@pytest.mark.parametrize(("imminent", "expected"), [(0.9, "score 0.90 >= 0.50"), (0.45, "score 0.45 by now")])
def test_an_imminent_collision_is_held_against_the_threshold_by_its_score(imminent, expected):
    rule = TriggerRule(needed=1, window=1, release_steps=2, imminent_gain=1.0)
    found = verdicts(Said([0.1, 0.1], [0.9, imminent]), rule, 2)
    assert f"(probability {imminent:.2f}), {expected}" in found[1].why
