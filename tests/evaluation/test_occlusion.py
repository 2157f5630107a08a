"""What a part of the input weighs, worked out by hand on a predictor that adds its inputs up."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import log_sequences

from failsight.core.types import Risk
from failsight.evaluation.occlusion import HIDDEN, alike, occlude, usual_of


class Sum:
    """Evidence = first signal + twice the second + the first entry of the hidden state, of this step alone."""

    def reset(self, task):
        pass

    def update(self, signals, hidden):
        return Risk(p_fail=0.5, evidence=float(signals[0] + 2 * signals[1] + hidden[0]))


def episode(ticket, signals, hidden, *, failed):
    found = log_sequences(count=1)[0]
    signals, hidden = np.array(signals, np.float32), np.array(hidden, np.float16)
    return replace(found, ticket=ticket, signals=signals, hidden=hidden, failed=failed)


GOOD = [
    episode(1, [[0, 0], [1, 1], [2, 2]], [[0], [0], [0]], failed=False),
    episode(2, [[0, 0], [3, 1], [9, 9]], [[0], [1], [0]], failed=False),
    episode(3, [[0, 0], [2, 1]], [[0], [2]], failed=False),
]
BAD = episode(9, [[0, 0], [5, 4], [7, 7]], [[-1], [3], [3]], failed=True)
ALSO_BAD = episode(8, [[50, 50]] * 3, [[50]] * 3, failed=True)


def test_what_is_usual_is_the_median_of_the_successes_that_run_on():
    found = usual_of([s.signals for s in GOOD], 4)
    np.testing.assert_allclose(found, [[0, 0], [2, 1], [5.5, 5.5], [5.5, 5.5]])


def test_a_part_weighs_what_the_figure_falls_by_when_it_is_usual():
    seen = occlude(Sum(), ("speed", "force"), BAD, 1, [*GOOD, ALSO_BAD])
    assert seen.judged == 5 + 2 * 4 + 3
    assert [(part.name, part.without, part.fall) for part in seen.parts] == [
        ("force", 5 + 2 * 1 + 3, 6.0),
        ("speed", 2 + 2 * 4 + 3, 3.0),
        (HIDDEN, 5 + 2 * 4 + 1, 2.0),
    ]
    assert seen.last_safe == 0  # -1 at step 0, where the median success has 0
    assert "force 10.00 (-6.00)" in seen.sentence()


def test_nothing_after_the_step_is_looked_at():
    later = replace(BAD, signals=np.concatenate([BAD.signals[:2], [[99, 99]]]).astype(np.float32))
    assert occlude(Sum(), ("speed", "force"), later, 1, GOOD) == occlude(Sum(), ("speed", "force"), BAD, 1, GOOD)


def test_an_episode_that_never_looked_safe_says_so():
    high = replace(BAD, hidden=np.full((3, 1), 9, np.float16))
    assert "no step before it looked safe" in occlude(Sum(), ("speed", "force"), high, 1, GOOD).sentence()


def test_episodes_are_alike_by_their_signals_in_units_of_their_spread():
    near = alike(GOOD[0], 1, [*GOOD[1:], BAD, ALSO_BAD], 2)
    assert [found.ticket for found in near] == [3, 2]
    assert near[0].distance == pytest.approx(abs(0.5 - 1.0) / np.std([0.5, 1.5, 1.0, 2.5, 50]))
