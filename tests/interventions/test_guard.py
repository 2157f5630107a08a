"""The guard's holds, clips, latch and memory, word by word and number by number."""

from __future__ import annotations

import numpy as np
import pytest

from failsight.core.specs import ActionSpec, Dimension
from failsight.interventions.guard import Guard, GuardState

SPEC = ActionSpec(
    dimensions=(
        Dimension(name="dx", kind="delta", unit="m", low=-1.0, high=1.0),
        Dimension(name="gripper", kind="binary", unit="", low=-1.0, high=1.0),
    ),
    frame="tool",
    rate_hz=20.0,
    gripper_closed_sign=1,
)
LAST = np.array([0.5, 1.0], np.float32)
GOOD = np.array([0.25, -1.0], np.float32)
BAD = np.array([np.nan, 0.0], np.float32)
HELD = [0.0, 1.0]
NOT_FINITE = "the action is not finite"


def tick(guard: Guard, action: np.ndarray | None) -> np.ndarray:
    return guard.check(action, LAST)


def test_a_new_guard_has_said_and_seen_nothing() -> None:
    guard = Guard(SPEC)
    assert (guard.latched, guard.reason, guard.note) == (False, "", "")
    assert guard.save_state() == GuardState((), "")


def test_a_good_action_passes_as_it_is() -> None:
    guard = Guard(SPEC)
    assert guard.finite(GOOD, LAST) is GOOD
    sent = guard.check(GOOD.astype(np.float64), LAST)
    assert sent.dtype == np.float32
    assert sent.tolist() == [0.25, -1.0]
    assert guard.note == ""
    assert guard.save_state() == GuardState((False,), "")


@pytest.mark.parametrize(
    ("action", "why"),
    [
        (None, "there is no action"),
        (BAD, NOT_FINITE),
        (np.array([0.0, np.inf]), NOT_FINITE),
        (np.zeros(3), "the action has shape (3,) instead of (2,)"),
        (np.zeros((1, 2)), "the action has shape (1, 2) instead of (2,)"),
    ],
)
def test_a_bad_action_becomes_a_hold_and_is_told(action: np.ndarray | None, why: str) -> None:
    guard = Guard(SPEC)
    assert guard.finite(action, LAST).tolist() == HELD
    assert guard.save_state() == GuardState((), ""), "looking at a planned action does not count"
    assert guard.note == ""
    sent = guard.check(action, LAST)
    assert sent.dtype == np.float32
    assert sent.tolist() == HELD
    assert (guard.note, guard.latched) == (f"held: {why}", False)
    assert guard.save_state().recent == (True,)


def test_the_reason_why_there_is_no_action_is_the_callers() -> None:
    guard = Guard(SPEC)
    guard.check(None, LAST, "the chunk has ended")
    assert guard.note == "held: the chunk has ended"


def test_two_of_three_latch_in_any_order_and_two_of_four_do_not() -> None:
    for pattern, latched in (
        ([BAD], False),
        ([BAD, BAD], True),
        ([BAD, GOOD, BAD], True),
        ([GOOD, BAD, BAD], True),
        ([BAD, GOOD, GOOD, BAD], False),
        ([BAD, GOOD, GOOD, BAD, GOOD, GOOD, BAD], False),
    ):
        guard = Guard(SPEC)
        for action in pattern:
            tick(guard, action)
        assert guard.latched is latched, pattern


def test_what_a_latch_says() -> None:
    guard = Guard(SPEC)
    tick(guard, BAD)
    tick(guard, GOOD)
    guard.note = ""
    tick(guard, None)
    assert guard.reason == "there is no action, on 2 of the last 3 ticks"
    assert guard.note == "held: there is no action; latched: there is no action, on 2 of the last 3 ticks"
    guard = Guard(SPEC)
    tick(guard, BAD)
    tick(guard, BAD)
    assert guard.reason == f"{NOT_FINITE}, on 2 of the last 2 ticks"


def test_the_first_reason_is_kept_and_an_empty_one_is_said() -> None:
    guard = Guard(SPEC)
    guard.latch("")
    assert (guard.latched, guard.reason, guard.note) == (True, "no reason given", "latched: no reason given")
    guard.latch("another")
    assert (guard.reason, guard.note) == ("no reason given", "latched: no reason given")


def test_a_new_episode_forgets_the_ticks_and_not_the_latch() -> None:
    guard = Guard(SPEC)
    tick(guard, BAD)
    guard.reset()
    assert guard.note == ""
    assert guard.save_state() == GuardState((), "")
    guard.latch("door opened")
    guard.reset()
    assert guard.latched
    assert guard.reason == "door opened"
    assert guard.note == ""


def test_release_forgets_everything_and_says_by_whom() -> None:
    guard = Guard(SPEC)
    tick(guard, BAD)
    tick(guard, BAD)
    guard.release("Ann")
    assert not guard.latched
    assert guard.note == "released by Ann"
    assert guard.save_state() == GuardState((), "")
    tick(guard, BAD)
    assert not guard.latched


def test_a_person_who_drives_is_not_stopped_by_the_policys_nan() -> None:
    guard = Guard(SPEC)
    for _ in range(4):
        guard.finite(BAD, LAST)
        assert guard.check(GOOD, LAST).tolist() == [0.25, -1.0]
    assert (guard.latched, guard.note) == (False, "")
    assert guard.save_state().recent == (False,) * 3


def test_a_note_is_taken_once() -> None:
    guard = Guard(SPEC)
    tick(guard, BAD)
    assert guard.take_note() == f"held: {NOT_FINITE}"
    assert (guard.take_note(), guard.note) == ("", "")


def test_values_beyond_the_range_are_clipped_and_named() -> None:
    guard = Guard(SPEC)
    assert guard.check(np.array([1.5, -3.0]), LAST).tolist() == [1.0, -1.0]
    assert guard.note == "clipped: dx 1.5 to 1, gripper -3 to -1"
    assert guard.save_state().recent == (False,)
    guard.reset()
    assert guard.check(np.array([-1.0, 1.0]), LAST).tolist() == [-1.0, 1.0]
    assert guard.note == ""
    assert guard.check(np.array([-1.0, 1.25]), LAST).tolist() == [-1.0, 1.0]
    assert guard.note == "clipped: gripper 1.25 to 1"


def test_memory_goes_out_and_comes_back() -> None:
    guard, fork = Guard(SPEC), Guard(SPEC)
    tick(guard, BAD)
    tick(guard, GOOD)
    state = guard.save_state()
    assert state == GuardState((True, False), "")
    fork.note = "of before"
    fork.load_state(state)
    assert fork.save_state() == state
    assert fork.note == ""
    tick(fork, None)
    assert fork.latched
    assert fork.reason == "there is no action, on 2 of the last 3 ticks"
    tick(fork, GOOD)
    assert fork.save_state().recent == (False, True, False)
    guard.load_state(GuardState((), "stopped by hand"))
    assert guard.latched
    assert guard.reason == "stopped by hand"
