"""What an arm is compared with: doing nothing, and something like it at random moments."""

import pytest

from failsight.core.types import EpisodeKey, Outcome
from failsight.evaluation.paired import PairedEpisode
from failsight.recipes.interventions.summary import arm_rows
from failsight.workflows.forks import ForkRecord


def ended(success, *, triggered=True, human=0):
    outcome = Outcome.SUCCESS if success else Outcome.FAILURE
    return PairedEpisode(
        task="t",
        outcome=outcome,
        collision=False,
        triggered=triggered,
        steps=10,
        intervened_steps=5 * triggered,
        human_steps=human,
    )


def record(number, **arms):
    key = EpisodeKey(seed=0, task="t", episode=number)
    done = {name: ended(success) for name, success in arms.items()}
    return ForkRecord(key=key, none=ended(False, triggered=False), trigger_step=3, arms=done, again=None)


RECORDS = [
    record(0, slow=True, placebo=True, takeover=True, takeover_random=True),
    record(1, slow=True, placebo=False, takeover=True, takeover_random=True),
    record(2, slow=False, placebo=False, takeover=True, takeover_random=False),
    record(3, slow=False, placebo=False, takeover=True, takeover_random=False),
]
"""Of four: slow saves 2, its placebo 1; a person saves 4, one called at random moments 2."""


def test_a_persons_placebo_is_a_person():
    rows = arm_rows(RECORDS, ("none", "slow", "placebo", "takeover", "takeover_random"), 20.0)
    assert (rows["slow"]["placebo"], rows["slow"]["over_placebo"]["value"]) == ("placebo", pytest.approx(0.25))
    assert (rows["takeover"]["placebo"], rows["takeover"]["over_placebo"]["value"]) == (
        "takeover_random",
        pytest.approx(0.5),
    )
    assert "placebo" not in rows["none"]
    assert "over_placebo" not in rows["takeover_random"]


def test_without_a_placebo_of_its_kind_any_will_do_and_without_one_nothing_is_compared():
    rows = arm_rows(RECORDS, ("none", "slow", "placebo", "takeover"), 20.0)
    assert (rows["takeover"]["placebo"], rows["takeover"]["over_placebo"]["value"]) == ("placebo", pytest.approx(0.75))
    assert "placebo" not in arm_rows(RECORDS, ("none", "slow"), 20.0)["slow"]
