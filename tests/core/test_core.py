import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError, FailsightError, SpecMismatchError, UnknownNameError
from failsight.core.harm import CollisionRule
from failsight.core.registry import load, resolve
from failsight.core.rng import keyed_rng
from failsight.core.specs import ActionSpec, ObservationSpec, require_equal
from failsight.core.state import pack_state, unpack_state
from failsight.core.types import Event, Perturbation, PolicyOutput
from failsight.testing.fakes import ACTIONS, OBSERVATIONS


def test_keyed_numbers_are_the_same_in_another_process():
    code = "from failsight.core.rng import keyed_rng; print(repr(float(keyed_rng(1, 'task', 2, 'noise', 3).random())))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert float(printed) == float(keyed_rng(1, "task", 2, "noise", 3).random())


def test_keys_are_independent_streams():
    draws = np.array([keyed_rng(0, "t", 0, "s", step).standard_normal() for step in range(2000)])
    assert abs(draws.mean()) < 0.1
    assert abs(draws.std() - 1) < 0.1
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.08


def test_unknown_names_offer_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean retry"):
        resolve("intervention", "retri", {"retry": "x:y", "slow": "x:y"})


def test_a_missing_extra_names_the_install_line():
    with pytest.raises(FailsightError, match="pip install"):
        load("no_such_package_anywhere:thing")


def test_specs_survive_json_and_mismatches_show_both_sides():
    assert ActionSpec.from_dict(ACTIONS.as_dict()) == ACTIONS
    assert ObservationSpec.from_dict(OBSERVATIONS.as_dict()) == OBSERVATIONS
    with pytest.raises(SpecMismatchError, match=r"^Things differ\. maker: 1; user: 2\.$"):
        require_equal("Things", maker=1, user=2)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (
            replace(
                ACTIONS, rate_hz=10.0, dimensions=(replace(ACTIONS.dimensions[0], low=-2.0), *ACTIONS.dimensions[1:])
            ),
            ACTIONS,
            "dimensions, dx, low - policy: -2.0; simulator: -1.0. rate_hz - policy: 10.0; simulator: 20.0.",
        ),
        (
            replace(ACTIONS, dimensions=ACTIONS.dimensions[:2]),
            ACTIONS,
            "dimensions - policy: nothing more; simulator: also dz, gripper.",
        ),
        (
            replace(ACTIONS, dimensions=(*ACTIONS.dimensions[1::-1], *ACTIONS.dimensions[2:])),
            ACTIONS,
            "dimensions - policy: dy, dx, dz, gripper; simulator: dx, dy, dz, gripper.",
        ),
        (
            replace(OBSERVATIONS, state=("x_m", "q")),
            replace(OBSERVATIONS, state=("x_m", "y_m")),
            "state - policy: also q; simulator: also y_m.",
        ),
        (
            replace(OBSERVATIONS, cameras=(("agent", 32, 16),)),
            OBSERVATIONS,
            "cameras, agent, 1 - policy: 32; simulator: 16.",
        ),
    ],
)
def test_specs_that_differ_show_the_fields_that_differ_and_no_other(one, other, said):
    with pytest.raises(SpecMismatchError) as told:
        require_equal("Specs", policy=one, simulator=other)
    assert str(told.value) == f"Specs differ. {said}"


def test_hold_keeps_the_gripper_and_zeroes_the_rest():
    held = ACTIONS.hold(np.array([0.5, -0.5, 0.1, 1.0], np.float32))
    assert held.tolist() == [0.0, 0.0, 0.0, 1.0]
    assert ACTIONS.scalable.tolist() == [True, True, True, False]


def test_states_round_trip_exactly_and_truncation_is_noticed():
    state = pack_state({"x": 0.1 + 0.2}, {"a": np.array([np.nan, 1e-300]), "b": np.arange(3, dtype=np.int32)})
    values, arrays = unpack_state(state)
    assert values["x"] == 0.1 + 0.2
    assert arrays["a"].tobytes() == np.array([np.nan, 1e-300]).tobytes()
    for end in (6, 12, -2):
        with pytest.raises(EpisodeDataError, match="truncated"):
            unpack_state(state[:end])
    with pytest.raises(EpisodeDataError, match="not a saved state"):
        unpack_state(b"something else")


@pytest.mark.parametrize("text", ["push", "push:x", "push:9"])
def test_bad_perturbations_are_explained(text):
    with pytest.raises(FailsightError, match="level"):
        Perturbation.parse(text)


def test_perturbations_round_trip_sorted():
    assert "+".join(map(str, Perturbation.parse("push:3+light:2"))) == "light:2+push:3"


def test_a_chunk_must_be_two_dimensional():
    with pytest.raises(EpisodeDataError, match=r"\(H, A\)"):
        PolicyOutput(chunk=np.zeros(3))


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        (Event(step=0, kind="contact", subject="gripper", other="wall", value=2.5), True),
        (Event(step=0, kind="contact", subject="gripper", other="wall", value=1.5), False),
        (Event(step=0, kind="contact", subject="gripper", other="table", value=10.0), False),
        (Event(step=0, kind="contact", subject="gripper", other="table", value=40.0), True),
        (Event(step=0, kind="toppled", subject="post", value=25.0), True),
        (Event(step=0, kind="toppled", subject="post", value=15.0), False),
        (Event(step=0, kind="grasp", subject="red_cube", value=99.0), False),
    ],
)
def test_collision_rule(event, counts):
    assert CollisionRule().matches(event) is counts
