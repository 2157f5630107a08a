"""The table of arms: one row per intervention, and names from elsewhere."""

from dataclasses import replace

import pytest

from failsight.core.errors import FailsightError, UnknownNameError
from failsight.core.specs import Dimension
from failsight.core.types import DecisionKind, Risk, Verdict
from failsight.interventions.arms import ARMS, NONE, Arm, arm_words, find_arm, find_arms
from failsight.interventions.gate import GateEntry, gate_entry
from failsight.interventions.placebo import Forced
from failsight.interventions.rungs import Retry, Slow, Watch
from failsight.testing.fakes import ACTIONS, OBSERVATIONS
from failsight.workflows.collect import CollectOptions, require_live

BASE = replace(ACTIONS, dimensions=tuple(Dimension(name=n, kind="velocity", unit="m/s") for n in ("vx", "vy")))


class Nudge(Watch):
    """A push from the side. Small."""


NUDGE = Arm(key="other", title="Nudging helps", sentence="a push", autonomous=False, make=lambda gate: Nudge())


def opened(*rungs):
    return tuple(GateEntry(rung=rung, triggers=40, rescues=30, harms=0) for rung in rungs)


def test_the_table_has_one_order_and_keys_that_agree():
    assert next(iter(ARMS)) == NONE
    assert all(key == arm.key for key, arm in ARMS.items())
    assert [arm.key for arm in find_arms(("ladder", "slow", f"{__name__}:Nudge", "none"))] == [
        *("none", "slow", "ladder", f"{__name__}:Nudge")
    ]
    words = arm_words(("ladder", "slow"))
    assert [(key, row["order"], row["autonomous"]) for key, row in words.items()] == [
        ("slow", 0, True),
        ("ladder", 1, False),
    ]
    assert words["slow"]["title"] == "Going slower at the alarm helps"


def test_a_gate_entry_counts_rescues_and_harms():
    """(succeeded without, with): two rescues, one harm, one lost, one kept; net (2 - 1) / 5."""
    forks = [(False, True), (False, True), (True, False), (False, False), (True, True)]
    entry = gate_entry("slow", forks)
    assert (entry.triggers, entry.rescues, entry.harms, entry.net) == (5, 2, 1, 0.2)
    assert gate_entry("slow", []).as_dict()["net"] is None, "a gate without triggers is written as JSON"


def test_ladders_climb_the_rungs_of_their_gate_and_only_one_calls_a_person():
    gate = opened("slow", f"{__name__}:Nudge", "takeover")
    assert find_arm("ladder").make(gate).open == ("slow", f"{__name__}:Nudge", "takeover")
    assert find_arm("ladder_auto").make(gate).open == ("slow", f"{__name__}:Nudge")
    with pytest.raises(UnknownNameError, match="arm 'gone'"):
        find_arm("ladder").make(opened("slow", "gone"))


def test_arms_of_others_are_named_by_where_they_are():
    nudge = find_arm(f"{__name__}:Nudge")
    assert isinstance(nudge.make(()), Nudge)
    assert (nudge.sentence, nudge.title, nudge.rung) == (
        "A push from the side. Small",
        "Nudge at the alarm helps",
        True,
    )
    whole = find_arm(f"{__name__}:NUDGE")
    assert (whole.key, whole.title, whole.autonomous) == (f"{__name__}:NUDGE", "Nudging helps", False)
    with pytest.raises(FailsightError, match="neither an Arm nor an intervention"):
        find_arm(f"{__name__}:BASE")
    with pytest.raises(UnknownNameError, match="Did you mean slow"):
        find_arm("slwo")


def test_the_placebo_does_what_the_robot_can():
    quiet = Verdict(risk=Risk(p_fail=0.1), threshold=0.5, margin=-0.4, trigger=False, why="")
    for actions, kind in ((ACTIONS, "retry"), (BASE, "half speed")):
        placebo = ARMS["placebo"].make(())
        placebo.require_robot(actions, OBSERVATIONS)
        assert isinstance(placebo._inner, Retry if kind == "retry" else Slow)
    context = type("Context", (), {"action_spec": BASE})()
    said = [placebo.propose(quiet, context) for _ in range(25)]
    assert [d.kind for d in said] == [DecisionKind.SLOW] * 20 + [DecisionKind.CONTINUE] * 5, "one second, once"
    with pytest.raises(FailsightError, match="needs a delta action dx"):
        Forced(Retry()).require_robot(BASE, OBSERVATIONS)


@pytest.mark.parametrize(("name", "words"), [("ladder", "forks that open"), ("placebo", "random moment")])
def test_an_arm_that_needs_forks_is_refused_in_a_single_run(name, words):
    with pytest.raises(FailsightError, match=words):
        require_live(CollectOptions(arm=name))
    require_live(CollectOptions(arm="slow"))
    require_live(CollectOptions())


def test_nobody_is_called_where_nobody_can_come():
    with pytest.raises(FailsightError, match="libero has no operator"):
        require_live(CollectOptions(arm="takeover", sim="libero"))
