from dataclasses import dataclass, field, replace
from typing import Annotated

import pytest

from failsight.core.errors import FailsightError
from failsight.core.ranges import Alpha, Between, Count, Seeds, Share, require_arguments, require_fields


def command(
    trials: Count = 1, alpha: Alpha = 0.1, seeds: Seeds = (0,), limit: Annotated[int, Between(0, 9)] | None = None
):
    pass


@dataclass(frozen=True)
class Inner:
    share: Share = 0.5


@dataclass(frozen=True)
class Outer:
    steps: Count = 1
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": 0}, "--trials is 0; it takes 1 to 1,000,000."),
        ({"trials": -3}, "--trials is -3"),
        ({"trials": 10**9}, "--trials is 1000000000"),
        ({"alpha": 0.0}, "--alpha is 0.0; it takes a number above 0 and below 1."),
        ({"alpha": 1.0}, "--alpha is 1.0"),
        ({"alpha": float("nan")}, "--alpha is nan"),
        ({"seeds": (0, 0)}, "--seeds has 0 twice"),
        ({"seeds": (0, -1)}, "--seeds is -1"),
    ],
)
def test_outside_is_refused_by_flag_value_and_range(values, message):
    with pytest.raises(FailsightError) as caught:
        require_arguments(command, values)
    assert message in str(caught.value)


def test_inside_passes():
    require_arguments(command, {"trials": 1_000_000, "alpha": 0.5, "seeds": (0, 1), "limit": None})


def test_nested_fields_carry_their_whole_flag():
    require_fields(Outer())
    with pytest.raises(FailsightError, match="--steps is 0"):
        require_fields(Outer(steps=0))
    with pytest.raises(FailsightError, match=r"--inner\.share is nan"):
        require_fields(replace(Outer(), inner=Inner(share=float("nan"))))
