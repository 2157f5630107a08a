"""The ladder by failure type and the published table, tick by tick and by hand (20 ticks a second)."""

from dataclasses import replace

import numpy as np
import pytest
from test_interventions import context

from failsight.core.errors import BundleError, FailsightError
from failsight.core.types import FAILURE_TYPES, EpisodeKey, Outcome, Risk, Verdict
from failsight.evaluation.paired import PairedEpisode
from failsight.interventions.arms import find_arm
from failsight.interventions.gate import GateEntry
from failsight.interventions.ladder import Ladder
from failsight.interventions.ladder_file import load_ladder, save_ladder
from failsight.interventions.placebo import Always
from failsight.interventions.rungs import Replan, Retry, SafeStop, Slow, Takeover, conservative
from failsight.interventions.salus import TableLadder
from failsight.interventions.terms import RungTerms
from failsight.workflows.forks import ForkRecord, gate_from, require_unseen

HUMAN = RungTerms(autonomous=False, cost=9.0)


def said(p_fail, kind="", trigger=None, left=np.nan):
    """A verdict at threshold 0.5; the trigger is on from there unless told otherwise."""
    types = np.full(4, np.nan) if not kind else 0.1 + 0.6 * (np.array(FAILURE_TYPES) == kind)
    risk = Risk(p_fail=p_fail, type=types, time_to_failure=left)
    on = p_fail >= 0.5 if trigger is None else trigger
    return Verdict(risk=risk, threshold=0.5, margin=p_fail - 0.5, trigger=on, why="test")


def kinds(ladder, *verdicts):
    return [str(ladder.propose(verdict, context()).kind) for verdict in verdicts]


def helps(rung, kind="", harms=0):
    return GateEntry(rung=rung, triggers=40, rescues=30 - harms, harms=harms, type=kind)


def make(gate=None, **options):
    rungs = {"slow": Slow(dwell_s=9.0), "person": Takeover()}
    return Ladder(rungs, ["slow", "person"], gate, **{"terms": {"person": HUMAN}, **options})


def test_a_rung_is_open_for_the_types_that_forks_opened_it_for_and_no_other():
    gate = (
        helps("slow", harms=15),
        helps("person", harms=15),
        *(helps("slow", kind, 0 if kind == "timeout" else 15) for kind in ("collision", "timeout")),
        *(helps("person", kind, 0 if kind == "collision" else 15) for kind in ("collision", "timeout")),
    )
    for kind, does in (("timeout", "slow"), ("collision", "human"), ("drop", "continue"), ("", "continue")):
        assert kinds(make(gate), said(0.9, kind)) == [does], kind
    assert make(gate).open == ("slow", "person")
    together = (helps("slow"), helps("slow", "miss", harms=15))
    assert kinds(make(together), said(0.9)) == ["slow"], "no type predicted: all forks together count"
    assert kinds(make(together), said(0.9, "miss")) == ["continue"]
    assert kinds(make((helps("slow"),)), said(0.9, "miss")) == ["slow"], "a gate that was never asked by type"


def test_the_policy_goes_on_after_three_low_steps():
    ladder = make(tau_low=0.2, calm_s=0.15)
    assert kinds(ladder, said(0.9), said(0.1), said(0.2), said(0.1), said(0.1)) == ["slow"] * 3 + ["continue"] * 2
    ladder.reset()
    assert kinds(ladder, said(0.9), said(0.1), said(0.3), said(0.1), said(0.1), said(0.1)) == ["slow"] * 5 + [
        "continue"
    ]
    half = make(calm_s=0.05)
    assert kinds(half, said(0.9), said(0.26), said(0.25)) == ["slow", "slow", "continue"], "half of the threshold"


def test_after_three_recoveries_a_person():
    ladder = make(calm_s=0.05)
    alarm = [said(0.9), said(0.1)]
    assert kinds(ladder, *alarm * 4) == ["slow", "continue"] * 3 + ["human", "human"]
    assert kinds(ladder, *[said(0.1)] * 60) == ["human"] * 60, "a person hands back alone"
    ladder.reset()
    assert kinds(ladder, said(0.9)) == ["slow"]


def test_when_its_time_is_up_the_next_dearer_rung_acts():
    """0.2 s are four ticks after the one it began at; then 0.1 s; the stop costs more than the person."""
    rungs = {"stop": SafeStop(), "person": Takeover(), "slow": Slow(dwell_s=9.0), "replan": Replan()}
    terms = {
        "slow": RungTerms(limit_s=0.2),
        "replan": RungTerms(limit_s=0.1, cost=2.0),
        "person": RungTerms(limit_s=0.1, cost=3.0),
        "stop": RungTerms(cost=4.0),
    }
    ladder = Ladder(rungs, list(rungs), None, terms=terms)
    assert kinds(ladder, *[said(0.9)] * 12) == [
        *["slow"] * 5,
        *["replan", "continue", "continue"],
        *["human"] * 3,
        "stop",
    ]
    gone = make(terms={"slow": RungTerms(limit_s=0.1), "person": HUMAN}, calm_s=9.0)
    assert kinds(gone, said(0.9), said(0.4), said(0.4), said(0.4)) == ["slow", "slow", "slow", "continue"]


@pytest.mark.parametrize(
    ("kind", "left", "does"),
    [
        ("collision", 9.0, "human"),
        ("collision", 10.0, "backtrack"),
        ("timeout", 1.0, "backtrack"),
        ("drop", np.nan, "backtrack"),
    ],
)
def test_what_comes_too_late_for_what_cannot_be_undone_is_skipped(kind, left, does):
    """Half a second is ten steps."""
    rungs = {"retry": Retry(), "person": Takeover()}
    ladder = Ladder(rungs, list(rungs), None, terms={"retry": RungTerms(takes_s=0.5), "person": HUMAN})
    assert kinds(ladder, said(0.9, kind, left=left)) == [does]


def test_a_manoeuvre_is_seen_through():
    rungs = {"retry": Retry(), "person": Takeover()}
    ladder = Ladder(rungs, list(rungs), None, calm_s=0.05)
    assert kinds(ladder, said(0.9), *[said(0.0)] * 6) == ["backtrack"] * 7


def test_what_a_rung_changed_is_over_with_it():
    ladder = Ladder({"conservative": conservative()}, ["conservative"], None, calm_s=0.05)
    decisions = [ladder.propose(verdict, context()) for verdict in (said(0.9), said(0.1), said(0.1))]
    assert [(str(d.kind), d.execute) for d in decisions] == [("limit", 2), ("continue", 0), ("continue", None)]


def test_the_published_table():
    """0.9 and a collision: stop; 0.7 and a drop or a miss: slow; 0.6 and anything: again; nothing before the alarm."""
    for p_fail, kind, does in (
        (0.9, "collision", "stop"),
        (0.89, "collision", "backtrack"),
        (0.7, "drop", "slow"),
        (0.95, "miss", "slow"),
        (0.69, "miss", "backtrack"),
        (0.6, "timeout", "backtrack"),
        (0.6, "", "backtrack"),
        (0.59, "drop", "continue"),
    ):
        assert kinds(TableLadder(), said(p_fail, kind)) == [does], (p_fail, kind)
    assert kinds(TableLadder(), said(0.9, "collision", trigger=False)) == ["continue"]
    assert kinds(TableLadder(), said(0.5), said(0.65, "drop", trigger=False)) == ["continue", "backtrack"]


def test_the_fourth_retry_of_the_published_table_is_a_person():
    table = TableLadder()
    table.propose(said(0.5), context())
    for attempt in range(3):
        first = table.propose(said(0.65), context())
        assert first.reason == f"retry {attempt + 1}: p_fail 0.65, no type"
        while table._retry._waypoints:
            place = table._retry._waypoints[0]
            assert table.propose(said(0.1), context(state=(*place, 1.0))).kind in ("backtrack", "continue")
        assert kinds(table, *[said(0.3)] * 26) == ["continue"] * 26
    assert kinds(table, said(0.65), said(0.1)) == ["human", "human"]


def record(episode, kind, alone, acted):
    outcomes = [Outcome.SUCCESS if good else Outcome.FAILURE for good in (alone, acted)]
    none, slow = (
        PairedEpisode(task="a", outcome=o, collision=False, triggered=True, steps=9, intervened_steps=1, human_steps=0)
        for o in outcomes
    )
    key = EpisodeKey(seed=1, task="a", episode=episode)
    return ForkRecord(key=key, none=none, trigger_step=3, arms={"slow": slow}, again=None, type=kind)


def test_the_gate_counts_all_together_and_type_by_type():
    forks = [("drop", False, True), ("drop", True, False), ("miss", False, True), ("", False, False)]
    records = [record(i, *fork) for i, fork in enumerate(forks)]
    found = [(e.type, e.triggers, e.rescues, e.harms) for e in gate_from(records, ["slow"])]
    assert found == [("", 4, 2, 1), ("drop", 2, 1, 1), ("miss", 1, 1, 0)]


def test_the_forks_that_opened_a_rung_never_judge_it():
    records = [record(i, "", False, True) for i in range(3)]
    require_unseen(records, [replace(records[0].key, seed=2)])
    with pytest.raises(FailsightError, match=r"1 episodes opened rungs and would judge them, for example .*episode=1"):
        require_unseen(records, [records[1].key])


def test_the_ladder_of_a_bundle_keeps_the_types(tmp_path):
    (tmp_path / "fingerprint.json").write_text('{"bundle": "b"}')
    entries = (helps("slow"), helps("slow", "miss", harms=3))
    path = save_ladder(tmp_path, entries)
    assert load_ladder(tmp_path) == entries
    old = path.read_text().replace('"type": "miss"', '"type": "x"')
    path.write_text(old)
    with pytest.raises(BundleError, match="type is 'x'; write one of collision"):
        load_ladder(tmp_path)


def test_controls_act_at_random_or_all_the_time():
    always = find_arm("always_on").make(())
    assert isinstance(always, Always)
    assert kinds(always, *[said(0.0)] * 50) == ["slow"] * 50, "nothing is open: half speed"
    opened = find_arm("always_on").make((helps("takeover"), helps("replan")))
    assert kinds(opened, said(0.0)) == ["replan"], "the mildest open rung that needs nobody"
    random = find_arm("random_trigger").make((helps("slow"),))
    assert kinds(random, said(0.0), said(0.0)) == ["slow", "slow"]
    assert kinds(find_arm("random_trigger").make(()), said(0.0)) == ["continue"]
