"""The failure head's loss, by hand."""

import numpy as np
import pytest
import torch

from failsight.policies.vla.failure_head import Foresight, failure_error

NAN = float("nan")


def error(fails=NAN, failing=NAN, left=NAN):
    """One window of one frame, a head that says 0 throughout, 20 Hz."""
    said = Foresight(*(torch.zeros(1, 1) for _ in range(3)))
    values = (torch.tensor([[x]]) for x in (fails, failing, left))
    return float(failure_error(said, *values, 0.05, None))


def test_each_part_counts():
    """BCE at logit 0 is ln 2; 20 steps are 1 s, so the time is ln 2 off and Huber's error half its square."""
    assert error(fails=1.0) == pytest.approx(np.log(2), rel=1e-5)
    assert error(left=20.0) == pytest.approx(np.log(2) ** 2 / 2, rel=1e-5)
    assert error(failing=1.0) == pytest.approx(np.log(2), rel=1e-5)
    assert error(1.0, 1.0, 20.0) == pytest.approx(2 * np.log(2) + np.log(2) ** 2 / 2, rel=1e-5)


def test_what_is_not_known_counts_for_nothing():
    assert error() == 0
    assert error(fails=0.0, left=float("inf")) == pytest.approx(np.log(2), rel=1e-5)
