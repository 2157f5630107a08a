import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError
from failsight.evaluation.judging import facts_of
from failsight.evaluation.protocols import (
    PROTOCOLS,
    EpisodeFacts,
    declared_cut,
    headline_cut,
    longest_test_cut,
    shortest_cut,
    splits,
    up_to,
)


def facts(tasks=10, each=50, seed=0):
    rng = np.random.default_rng(seed)
    task = np.repeat([f"task_{i}" for i in range(tasks)], each)
    failed = rng.random(tasks * each) < np.repeat(np.linspace(0.02, 0.6, tasks), each)
    length = np.where(failed, 104, rng.integers(27, 90, tasks * each))
    return EpisodeFacts(task, failed, length, 104, failed & (length == 104))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_parts_are_disjoint_and_repeatable(name):
    data = facts()
    first, again = splits(PROTOCOLS[name], data), splits(PROTOCOLS[name], data)
    for a, b in zip(first, again, strict=True):
        everything = np.concatenate(a)
        assert len(everything) == len(set(everything.tolist()))
        assert all((x == y).all() for x, y in zip(a, b, strict=True))
        train = np.concatenate([a.train, a.validate])
        assert not set(data.task[a.unseen]) & set(data.task[train])
        assert set(data.task[a.seen]) <= set(data.task[train])


@pytest.mark.parametrize("name", ["folds", "leave_tasks_out"])
def test_every_episode_is_scored_once(name):
    data = facts()
    parts = [np.concatenate([s.seen, s.unseen]) for s in splits(PROTOCOLS[name], data)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(data.task)))


def test_actprobe_counts_are_rounded_down_and_its_tasks_are_the_published_ones():
    data = facts()
    for split in splits(PROTOCOLS["actprobe_seen"], data):
        bad = data.failed & (data.task == "task_1")
        assert np.isin(split.train, np.flatnonzero(bad)).sum() == int(0.7 * bad.sum())
    held = [sorted(set(data.task[s.unseen])) for s in splits(PROTOCOLS["actprobe_unseen"], data)]
    assert held[0] == ["task_4", "task_5", "task_7"] == held[4]


def test_too_few_tasks_to_hold_out_is_said():
    for name in ("safe", "leave_tasks_out"):
        with pytest.raises(EpisodeDataError, match="at least 3"):
            splits(PROTOCOLS[name], facts(tasks=2))


def test_cuts():
    data = facts()
    assert set(declared_cut(data, 0.25)) == {26}
    assert (shortest_cut(data) <= data.length).all()
    test = np.arange(0, 500, 5)
    cut = longest_test_cut(data, test, 0.25)
    assert cut[test].max() == 26
    assert cut[test].min() <= 26
    assert headline_cut(data) == "25"
    assert headline_cut(data._replace(horizon=43)) == "early"
    assert up_to(np.array([9.0, 1.0, 5.0, 2.0]), 4, 1) == 5.0
    assert up_to(np.array([9.0, 1.0]), 4, 4) == 1.0


def test_a_contradictory_failure_is_one_that_ends_early():
    class Sequence:
        def __init__(self, length, failed):
            self.task, self.failed, self.signals, self.condition = "a", failed, np.zeros((length, 1)), "none"

    data = facts_of([Sequence(40, True), Sequence(20, True), Sequence(20, False)], 40)
    assert data.timed_out.tolist() == [True, False, False]
