import numpy as np
import pytest
from conftest import recurrent_arrays

from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec
from failsight.core.types import CONTINUE, Decision, DecisionKind, EpisodeKey, Outcome, Perturbation, Verdict
from failsight.interventions.rungs import (
    Backtrack,
    Reinstruct,
    Replan,
    Resample,
    Retry,
    SafeStop,
    Slow,
    Takeover,
    conservative,
)
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.runtime.loop import Loop
from failsight.testing import fakes


def Rewording():  # noqa: N802 (it stands where classes stand)
    return Reinstruct({"go home": ["come home"]})


def make_monitor(threshold):
    predictor = RecurrentPredictor(recurrent_arrays(hidden=8))
    return fakes.make_monitor(predictor, TriggerRule(needed=2, window=3), threshold)


class Homing:
    """An operator who heads home."""

    def act(self, sim):
        at = sim.observe()["observation.state"][:3]
        return np.array([*(-at / max(np.linalg.norm(at), 1e-6)), -1.0], np.float32)


def run(intervention=None, threshold=0.0, policy=None, key=None):
    loop = Loop(
        fakes.PointSim(),
        policy or fakes.PointPolicy(),
        monitor=make_monitor(threshold),
        intervention=intervention,
        operator=Homing(),
    )
    loop.start(key or EpisodeKey(seed=3, task="home", episode=1))
    loop.run()
    return loop


def test_an_episode_succeeds_and_is_traced():
    loop = run(threshold=2.0)
    assert loop.trace.outcome == Outcome.SUCCESS
    assert len(loop.trace.risks) == len(loop.trace.kinds)
    assert loop.trace.trigger_step is None


@pytest.mark.parametrize(
    "make", [SafeStop, Slow, Retry, Takeover, conservative, Replan, Resample, Backtrack, Rewording]
)
def test_a_fork_at_the_trigger_equals_the_whole_arm(make):
    key = EpisodeKey(seed=3, task="home", episode=2, perturbations=Perturbation.parse("wind:3"))
    whole = run(make(), key=key)
    loop = Loop(fakes.PointSim(), fakes.PointPolicy(), monitor=make_monitor(0.0), operator=Homing())
    loop.start(key)
    pending = loop.run(until=lambda step, verdict: verdict.trigger)
    snapshot = loop.save(pending)
    loop.act(*pending)
    loop.run()
    loop.resume(snapshot, make())
    assert loop.trace.outcome == whole.trace.outcome
    assert loop.trace.kinds == whole.trace.kinds
    assert [r.p_fail for r in loop.trace.risks] == [r.p_fail for r in whole.trace.risks]
    assert np.array_equal(loop.trace.path, whole.trace.path)


def test_continuing_twice_from_a_trigger_is_the_same_future():
    loop = Loop(fakes.PointSim(), fakes.PointPolicy(), monitor=make_monitor(0.0))
    loop.start(EpisodeKey(seed=3, task="home", episode=2))
    pending = loop.run(until=lambda step, verdict: verdict.trigger)
    snapshot, paths = loop.save(pending), []
    for _ in range(2):
        loop.resume(snapshot, None)
        paths.append(np.array(loop.trace.path))
    assert np.array_equal(*paths)


def test_safe_stop_is_its_own_outcome():
    assert run(SafeStop()).trace.outcome == Outcome.STOPPED


def test_slow_stretches_time_and_never_scales_the_gripper():
    executed = []

    class Spy(fakes.PointSim):
        def step(self, action):
            executed.append(action.copy())
            return super().step(action)

    loop = Loop(Spy(), fakes.PointPolicy(), monitor=make_monitor(0.0), intervention=Slow())
    loop.start(EpisodeKey(seed=3, task="home", episode=1))
    loop.run()
    slow = [a for a, kind in zip(executed, loop.trace.kinds, strict=True) if kind == DecisionKind.SLOW]
    assert slow
    assert all(abs(np.linalg.norm(a[:3]) - 0.5) < 1e-3 for a in slow)
    assert all(a[3] == -1.0 for a in slow)


def test_takeover_counts_the_persons_steps():
    loop = run(Takeover())
    assert loop.trace.outcome == Outcome.SUCCESS
    assert loop.trace.human_steps == sum(kind == DecisionKind.HUMAN for kind in loop.trace.kinds) > 0


def test_a_policy_that_turns_nan_holds_then_stops_latched():
    executed = []

    class Spy(fakes.PointSim):
        def step(self, action):
            executed.append(action.copy())
            return super().step(action)

    loop = Loop(Spy(), fakes.PointPolicy(bad_from=6), monitor=make_monitor(2.0))
    loop.start(EpisodeKey(seed=3, task="home", episode=1))
    loop.run()
    assert loop.trace.outcome == Outcome.ERRORED
    assert np.isfinite(executed).all()
    assert len(executed) == 8, "two bad ticks: a hold, then a hold that comes with the stop and the latch"
    assert np.array_equal(np.array(executed)[-2:, :3], np.zeros((2, 3)))
    assert loop.trace.trigger_step == 6, "NaN triggers at once, whatever the threshold"


def test_an_intervention_that_returns_nan_is_held():
    class Mad:
        def reset(self):
            pass

        def propose(self, verdict, context):
            if context.step == 2:
                return Decision(kind=DecisionKind.BACKTRACK, reason="mad", action=np.full(4, np.nan, np.float32))
            return CONTINUE

    assert run(Mad(), threshold=2.0).trace.outcome == Outcome.SUCCESS


def test_different_action_specs_stop_before_the_first_step():
    policy = fakes.PointPolicy()
    data = fakes.ACTIONS.as_dict()
    policy.action_spec = ActionSpec.from_dict({**data, "gripper_closed_sign": -1})
    with pytest.raises(
        SpecMismatchError,
        match=r"^Action specs of policy and simulator differ\. gripper_closed_sign - policy: -1; simulator: 1\.$",
    ):
        Loop(fakes.PointSim(), policy)


def test_replan_infers_afresh():
    class Replan:
        def reset(self):
            pass

        def propose(self, verdict: Verdict, context):
            return Decision(kind=DecisionKind.REPLAN, reason="always")

    loop = run(Replan(), threshold=2.0)
    assert all(kind == DecisionKind.REPLAN for kind in loop.trace.kinds)
