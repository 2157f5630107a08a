import numpy as np
import pandas as pd
import pytest

from failsight.core.harm import CollisionRule
from failsight.core.types import Event
from failsight.labels.events import EventLabeler, LabelThresholds
from failsight.sims.tabletop.env import ACTION_SPEC

TASK = "t"
NAMES = ACTION_SPEC.names


def label(events, steps=100, success=False, states=None, thresholds=None):
    states = np.zeros((steps, 11)) if states is None else states
    labeler = EventLabeler({TASK: "cube"}, ACTION_SPEC, thresholds)
    return labeler.label(TASK, states, np.zeros((steps, 7)), events, success)


def contact(step, force, other="wall", normal=(0.0, 1.0, 0.0), position=(0.0, 0.0, 0.0)):
    return Event(
        step=step, kind="contact", subject="gripper", other=other, value=force, normal=normal, position=position
    )


GRASP = Event(step=20, kind="grasp", subject="cube")
DROP = Event(step=40, kind="release", subject="cube", value=0.10)
MISS = Event(step=15, kind="missed_close", subject="gripper")


@pytest.mark.parametrize(
    ("events", "kind", "onset"),
    [
        ([contact(30, 5.0)], "collision", 30),
        ([contact(30, 1.0), MISS], "miss", 15),
        ([GRASP, DROP], "drop", 40),
        ([GRASP, DROP, contact(60, 3.0)], "collision", 60),
        ([MISS], "miss", 15),
        ([Event(step=12, kind="grasp", subject="other"), MISS], "miss", 12),
        ([MISS, GRASP, Event(step=40, kind="release", subject="cube", value=0.1, other="goal")], "timeout", None),
        ([MISS, GRASP], "timeout", None),
        ([], "timeout", None),
        ([GRASP, Event(step=30, kind="release", subject="cube", value=0.005)], "timeout", None),
    ],
)
def test_types_and_their_precedence(events, kind, onset):
    found = label(events)
    assert found.failure_type == kind
    if onset is not None:
        assert found.onset == onset
        assert found.time_to_failure[0] == onset


def test_thresholds_can_change_later():
    events = [contact(30, 5.0)]
    strict = LabelThresholds(collision=CollisionRule(touch_n=12.0))
    assert label(events, thresholds=strict).failure_type == "timeout"
    low = [GRASP, Event(step=40, kind="release", subject="cube", value=0.03)]
    assert label(low).failure_type == "drop"
    assert label(low, thresholds=LabelThresholds(drop_height_m=0.05)).failure_type == "timeout"


def test_a_success_is_never_a_failure_whatever_happened():
    found = label([GRASP, DROP, contact(50, 9.0)], success=True)
    assert (found.failure_type, found.onset) == (None, None)


def test_timeout_onset_is_where_progress_ended():
    states = np.zeros((160, 11))
    states[:60, 0] = 0.01 * np.arange(60)
    states[60:, 0] = 0.60 + 0.005 * np.sin(np.arange(100) * 2.1)
    assert 35 <= label([], 160, states=states).onset <= 60


@pytest.mark.parametrize(("normal", "axis"), [((1.0, 0, 0), "dx"), ((0, 1.0, 0), "dy"), ((0, 0, -1.0), "dz")])
def test_dimension_risk_follows_the_contact_normal(normal, axis):
    found = label([contact(50, 5.0, normal=normal)])
    at_risk = {NAMES[d] for d in np.flatnonzero(found.dimension[45])}
    assert at_risk == {axis}
    assert not found.dimension[:30].any(), "risk looks one second ahead, not further"
    assert not found.dimension[51:].any()


def test_a_lever_puts_rotations_at_risk():
    found = label([contact(50, 5.0, normal=(0.0, 1.0, 0.0), position=(0.1, 0.0, 0.0))])
    assert {NAMES[d] for d in np.flatnonzero(found.dimension[50])} == {"dy", "dyaw"}


def test_drops_and_misses_are_the_grippers_risk():
    for event in (DROP, MISS):
        found = label([GRASP, event])
        assert {NAMES[d] for d in np.flatnonzero(found.dimension[event.step])} == {"gripper"}


def test_the_table_counts_unscored_episodes():
    from failsight.labels.table import type_counts

    class Meta:
        def __init__(self, ticket):
            self.ticket, self.task = ticket, TASK

    class Run:
        episodes = (Meta(0), Meta(1), Meta(2))

    table = type_counts(Run(), {0: label([MISS]), 1: label([], success=True)})
    assert isinstance(table, pd.DataFrame)
    assert table.loc["all", ["success", "miss", "unscored"]].tolist() == [1, 1, 1]
