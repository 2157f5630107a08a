"""Onsets, levers and edges of the event labels, step by step by hand (20 Hz: one second is 20 steps)."""

import numpy as np
import pytest

from failsight.core.types import Event
from failsight.labels.events import EventLabeler
from failsight.sims.tabletop.env import ACTION_SPEC


def label(events, states):
    labeler = EventLabeler({"t": "cube"}, ACTION_SPEC)
    return labeler.label("t", states, np.zeros((len(states), 7)), events, False)


def moved(*steps, length=160, by=0.011):
    """States whose tool goes `by` along x in each of those steps (to step + 1)."""
    jumps = np.zeros(length)
    jumps[[step + 1 for step in steps]] = by
    states = np.zeros((length, 11))
    states[:, 0] = np.cumsum(jumps)
    return states


def contact(step, force=5.0, position=(0.0, 0.0, 0.0), normal=(0.0, 1.0, 0.0)):
    return Event(
        step=step, kind="contact", subject="gripper", other="wall", value=force, normal=normal, position=position
    )


@pytest.mark.parametrize(
    ("states", "onset"),
    [
        (moved(*range(60)), 58),  # from 58 on it goes 2 x 11 mm, more than 2 cm; from 59 on one
        (moved(*range(159)), 139),  # to the end: the last whole second
        (moved(158, by=0.1), 139),  # the last of the 21 positions belongs to it
        (moved(1, by=0.1), 1),
        (moved(0, by=0.1), 0),
        (moved(*range(14), length=15, by=0.1), 0),  # shorter than a second
        (moved(), 0),
    ],
)
def test_a_timeout_begins_with_the_last_second_of_progress(states, onset):
    found = label([], states)
    assert (found.failure_type, found.onset) == ("timeout", onset)
    assert found.time_to_failure.tolist() == [max(onset - t, 0) for t in range(len(states))]


def test_there_and_back_is_no_progress():
    """From step 40 on, forth and back: net 0 of a long way; within a second before it, still somewhere."""
    states = moved(*range(40))
    states[41:, 0] = states[40, 0] + 0.02 * (np.arange(41, 160) % 2)
    assert 20 <= label([], states).onset <= 40


def test_the_lever_is_taken_from_the_tool():
    states = np.zeros((100, 11))
    states[:, 2] = 0.2
    found = label([contact(50, position=(0.1, 0.0, 0.2))], states)
    assert {ACTION_SPEC.names[d] for d in np.flatnonzero(found.dimension[50])} == {"dy", "dyaw"}


def test_risk_covers_the_second_before_and_the_step_itself():
    states = np.zeros((100, 11))
    at = ACTION_SPEC.names.index("dy")
    assert np.flatnonzero(label([contact(50)], states).dimension[:, at]).tolist() == list(range(30, 51))
    assert np.flatnonzero(label([contact(5)], states).dimension[:, at]).tolist() == list(range(6))
    assert np.flatnonzero(label([contact(100)], states).dimension[:, at]).tolist() == list(range(80, 100))
    assert not label([contact(50, force=1.0)], states).dimension.any()


def test_a_miss_after_letting_go_low_is_a_miss():
    events = [
        Event(step=10, kind="grasp", subject="cube"),
        Event(step=20, kind="release", subject="cube", value=0.005),
        Event(step=30, kind="missed_close", subject="gripper"),
    ]
    found = label(events, np.zeros((100, 11)))
    assert (found.failure_type, found.onset) == ("miss", 30)
