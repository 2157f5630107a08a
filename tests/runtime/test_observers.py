"""What observers are told, and that a broken tick is told with what was known by then."""

import numpy as np
import pytest
from test_faults import AT, Acts, Monitor, Person, Policy, Robot

from failsight.core.types import CONTINUE, SILENT, DecisionKind, EpisodeKey, Outcome
from failsight.interventions.rungs import SafeStop, Takeover
from failsight.runtime.loop import Loop
from failsight.testing import fakes

KEY = EpisodeKey(seed=3, task="home", episode=1)


class Watcher:
    """Keeps every tick; breaks on demand."""

    name = "console"

    def __init__(self, wants_images=False, breaks_at=None):
        self.ticks, self.wants_images, self._breaks_at = [], wants_images, breaks_at

    def observe(self, tick):
        self.ticks.append(tick)
        if self._breaks_at is not None and tick.index >= self._breaks_at:
            raise RuntimeError("screen off")


def watch(watcher, policy="", monitor="", robot="", **parts):
    sim = fakes.PointSim()
    robot = Robot(sim, robot)
    loop = Loop(sim, Policy(policy), monitor=Monitor(monitor), observers=[watcher], robot=robot, **parts)
    loop.start(KEY)
    loop.run()
    return loop


def test_a_tick_holds_what_was_seen_judged_decided_and_done():
    watcher = Watcher()
    loop = watch(watcher)
    assert [tick.index for tick in watcher.ticks] == list(range(len(loop.robot.sent)))
    assert [np.round(tick.action, 3).tolist() for tick in watcher.ticks] == loop.robot.sent
    assert [tick.time_s for tick in watcher.ticks[:3]] == pytest.approx([0.0, 0.05, 0.1])
    assert {tick.driver for tick in watcher.ticks} == {"policy"}
    assert all(tick.decision is CONTINUE and tick.verdict.risk.p_fail == 0.1 for tick in watcher.ticks)
    last = watcher.ticks[-1]
    assert [(t.success, t.over) for t in watcher.ticks[:-1]] == [(False, False)] * (len(watcher.ticks) - 1)
    assert (last.success, last.over, [event.kind for event in last.events]) == (True, True, ["grasp"])
    assert np.array_equal(last.step.state, loop.trace.path[-1])


@pytest.mark.parametrize("wanted", [True, False])
def test_images_are_rendered_only_for_who_wants_them_and_lie_before_the_action(wanted):
    watcher = Watcher(wants_images=wanted)
    watch(watcher)
    assert all(bool(tick.images) is wanted for tick in watcher.ticks)
    if wanted:
        assert all(np.array_equal(t.images["observation.state"], t.step.state) for t in watcher.ticks)


def test_who_drives_is_said():
    watcher = Watcher()
    loop = watch(watcher, monitor="trigger", intervention=Takeover(), operator=Person())
    assert {(tick.driver, tick.index >= AT) for tick in watcher.ticks} == {("policy", False), ("operator", True)}
    assert loop.trace.human_steps == len(watcher.ticks) - AT
    nobody = Watcher()
    watch(nobody, monitor="trigger", intervention=Takeover())
    assert {tick.driver for tick in nobody.ticks[AT:]} == {"hold"}


@pytest.mark.parametrize(
    ("fault", "known"),
    [
        ({"policy": "raise"}, (False, False, False)),
        ({"monitor": "raise"}, (True, False, False)),
        ({"intervention": Acts("raise")}, (True, True, False)),
        ({"robot": "send"}, (True, True, True)),
    ],
)
def test_a_broken_tick_is_told_once_with_what_was_known(fault, known):
    watcher = Watcher()
    loop = watch(watcher, **fault)
    *before, broken = watcher.ticks
    assert all(tick.action is not None for tick in before)
    assert [broken.step is not None, broken.verdict is not None, broken.decision is not None] == list(known)
    assert broken.action is None
    assert broken.guard.startswith(f"latched: {loop.trace.error}; hold ")
    assert [tick.index for tick in watcher.ticks] == list(range(len(watcher.ticks))), "one tick per step"
    assert len(loop.trace.rows) == len(watcher.ticks)


def test_a_stop_is_told_with_its_decision_and_no_action():
    watcher = Watcher()
    watch(watcher, monitor="trigger", intervention=SafeStop())
    last = watcher.ticks[-1]
    assert (last.decision.kind, last.action, last.guard) == (DecisionKind.STOP, None, "stop sent")


def test_an_observer_that_breaks_ends_the_episode_by_name_and_masks_nothing():
    watcher = Watcher(breaks_at=2)
    loop = watch(watcher)
    assert (loop.trace.outcome, loop.trace.error) == (Outcome.ERRORED, "console: RuntimeError: screen off")
    assert loop._guard.latched
    assert loop.trace.rows[-1].step == 2
    assert len(loop.trace.kinds) == 3, "a tick that is told again counts once"


def test_a_release_is_told():
    watcher = Watcher()
    loop = watch(watcher, policy="raise")
    loop.release(by="Ada")
    assert watcher.ticks[-1].guard == loop.trace.rows[-1].guard == "released by Ada"
    assert watcher.ticks[-1].step is None


def test_a_guard_that_somebody_latched_meanwhile_lets_nothing_through():
    sim = fakes.PointSim()
    loop = Loop(sim, fakes.PointPolicy(), robot=Robot(sim))
    loop.start(KEY)
    pending = loop.perceive()
    loop._guard.latch("by hand")
    loop.act(*pending)
    assert loop.robot.sent == [[0.0, 0.0, 0.0, -1.0]]
    assert loop.robot.stops == ["by hand"]


def test_what_a_snapshot_holds_does_not_change_when_a_future_runs_from_it():
    loop = Loop(fakes.PointSim(), fakes.PointPolicy(), monitor=Monitor())
    loop.start(KEY)
    snapshot = loop.save(loop.run(until=lambda step, verdict: step.index == 3))
    for _ in range(2):
        loop.resume(snapshot, None)
        assert (snapshot.at.step, len(snapshot.trace.path), snapshot.trace.outcome) == (3, 3, None)
    assert SILENT.blind == ""
