import numpy as np
import pytest

from failsight.core.contracts import Context
from failsight.core.types import DecisionKind, Risk, Verdict
from failsight.interventions.guard import Guard
from failsight.interventions.ladder import GateEntry, Ladder
from failsight.interventions.rungs import Retry, SafeStop, Slow, Takeover
from failsight.testing.fakes import ACTIONS, OBSERVATIONS

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
    for expected in (False, False, True):
        held = guard.check(guard.finite(bad, last), last)
        assert held.tolist() == [0, 0, 0, 1.0], "a hold keeps the gripper closed"
        assert guard.latched is expected
    guard.check(guard.finite(last, last), last)
    assert guard.latched, "only a person releases the latch"
    guard.reset()
    assert not guard.latched


def test_one_bad_action_does_not_latch():
    guard = Guard(ACTIONS)
    good, bad = np.zeros(4), np.full(4, np.inf)
    for action in (bad, good, bad, good, bad, good, bad):
        guard.check(guard.finite(action, good), good)
    assert not guard.latched


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
        while retry.busy:
            target = retry._waypoints[0]
            retry.propose(ALARM, context(state=(*target, 1.0)))
        assert retry.propose(ALARM, context()).kind == DecisionKind.CONTINUE


def test_slow_dwells_then_lets_go():
    slow = Slow(dwell=3)
    kinds = [slow.propose(v, context()).kind for v in (QUIET, ALARM, QUIET, QUIET, QUIET)]
    assert kinds == ["continue", "slow", "slow", "slow", "continue"]


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
    rungs = {"slow": Slow(dwell=100), "takeover": Takeover(), "stop": SafeStop()}
    return Ladder(rungs, ("slow", "takeover"), gate, patience=5)


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
