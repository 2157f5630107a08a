"""Failure type when it matters, by hand."""

import numpy as np
import pytest

from failsight.core.rng import keyed_rng
from failsight.evaluation.detection import Scored
from failsight.evaluation.failure_types import CLASSES, NONE, ask, f1_table, said, type_figure, type_rows

COLLISION, DROP, MISS, TIMEOUT = range(4)


def scored(ticket, kind=-1, onset=None, trigger=None, says=COLLISION, task="a", length=100):
    types = np.zeros((length, 4))
    types[:, says] = 0.9
    return Scored(
        ticket=ticket,
        task=task,
        condition="none",
        failed=kind >= 0,
        kind=kind,
        onset=onset,
        p_fail=np.zeros(length),
        alarm=np.zeros(length),
        types=types,
        time_to_failure=np.zeros(length),
        dimension=np.zeros((length, 0)),
        dimension_labels=np.zeros((length, 0), bool),
        trigger=trigger,
    )


def test_the_answer_is_the_top_type_once_the_alarm_has_fired():
    late = scored(0, DROP, onset=50, trigger=51, says=DROP)
    assert said(late, 50) == NONE
    assert said(late, 51) == DROP
    assert said(scored(0, DROP, onset=50, says=DROP), 99) == NONE
    over = scored(1, trigger=5, says=MISS, length=10)
    assert said(over, 60) == MISS


def test_macro_f1_of_five_classes_by_hand():
    """Failures: a collision said in time, a drop said to be a collision, a drop and a timeout the alarm misses.

    Successes: two are quiet, one is said to be a timeout. No miss occurs, so four classes count:
    collision 2/3 (1 hit, said 2, was 1), drop 0, timeout 0 (said 1, was 1), none 4/7 (2 hits, said 4, was 3).
    """
    episodes = [
        scored(0, COLLISION, onset=40, trigger=40),
        scored(1, DROP, onset=60, trigger=30),
        scored(2, DROP, onset=60, trigger=61, says=DROP),
        scored(3, TIMEOUT, onset=80, says=TIMEOUT),
        scored(4),
        scored(5, trigger=90),
        scored(6, trigger=0, says=TIMEOUT),
    ]
    figure = type_figure(episodes, "by hand")
    assert figure.macro_f1.value == pytest.approx((2 / 3 + 0 + 0 + 4 / 7) / 4)
    assert figure.macro_f1.n == 7
    assert figure.confusion[:, NONE].tolist() == [0, 1, 0, 1, 2]
    assert np.isnan(f1_table(figure.confusion).f1[MISS])
    rows = figure.as_dict(20.0)
    assert rows["per_type"]["none"] == {"precision": 0.5, "recall": 2 / 3, "f1": pytest.approx(4 / 7), "n": 3}
    assert rows["per_type"]["miss"]["f1"] is None
    assert list(rows["per_type"]) == list(CLASSES)


def test_twenty_steps_earlier_the_alarm_must_have_fired_earlier():
    """Alarm at 30, onset at 40: said at the onset, not 20 steps before it. Macro F1 of the two classes there: 1, then 1/3."""
    episodes = [scored(0, COLLISION, onset=40, trigger=30), scored(1)]
    assert type_figure(episodes, "k").macro_f1.value == 1
    early = type_figure(episodes, "k", 20)
    assert early.macro_f1.value == pytest.approx((0 + 2 / 3) / 2)
    assert (early.as_dict(20.0)["lead_steps"], early.as_dict(20.0)["lead_s"]) == (20, 1.0)
    assert early.as_dict(0.0)["lead_s"] is None


def test_an_onset_sooner_than_the_lead_is_asked_at_the_first_step():
    assert ask([scored(0, COLLISION, onset=5, trigger=0), scored(1)], 20).said.tolist() == [COLLISION, NONE]


def test_a_success_is_asked_at_an_onset_of_its_own_task_drawn_by_key():
    """Task a fails at 10 or 30 only, task b at 70: the success of task a that alarms at 50 is never asked so late."""
    failures = [scored(i, MISS, onset=10 + 20 * i, says=MISS) for i in (0, 1)]
    failures += [scored(9, MISS, onset=70, says=MISS, task="b")]
    calm = [scored(10 + i, trigger=50) for i in range(20)]
    assert set(ask([*failures, *calm], 0).said[3:]) == {NONE}
    alarmed = [scored(10 + i, trigger=20) for i in range(20)]
    drawn = [10 + 20 * int(keyed_rng("type asked", "a", 10 + i).integers(2)) for i in range(20)]
    answers = ask([*failures, *alarmed], 0).said[3:]
    assert answers.tolist() == [COLLISION if t == 30 else NONE for t in drawn]
    assert set(answers) == {COLLISION, NONE}
    assert ask([*alarmed[::-1], *failures], 0).said[:20].tolist() == answers[::-1].tolist()
    elsewhere = ask([*failures, scored(99, trigger=60, task="c")], 0)
    assert len(elsewhere.said) == 4


def test_what_nobody_knows_is_not_asked():
    unknown = [scored(0, COLLISION), scored(1)]
    figure = type_figure(unknown, "k")
    assert np.isnan(figure.macro_f1.value)
    assert figure.unasked == 2
    blind = scored(0, COLLISION, onset=4, trigger=0)
    blind.types[:] = np.nan
    assert ask([blind], 0).said.tolist() == [NONE]


def test_hindsight_is_named_as_such():
    rows = type_rows([scored(0, COLLISION, onset=40), scored(1)], "k", 20.0)
    assert rows["macro_f1"]["value"] == pytest.approx(1 / 3)
    assert rows["hindsight"]["macro_f1"]["value"] == 1
    assert set(rows) == {
        "macro_f1",
        "per_type",
        "confusion",
        "unasked",
        "lead_steps",
        "lead_s",
        "before_onset",
        "hindsight",
    }
    silent = type_rows([scored(0, COLLISION, onset=40), scored(1)], "k", 20.0, alarm=False)
    assert (silent["macro_f1"]["value"], silent["macro_f1"]["n"]) == (None, 0)
    assert silent["hindsight"]["macro_f1"]["value"] == 1
