"""What hazards come to, written out once more."""

from typing import NamedTuple

import numpy as np

from failsight.predictors.hazard import EDGES, middles_of


class Survival(NamedTuple):
    p_fail: float
    time_to_failure: float


def survival(hazard, edges=EDGES):
    """p_fail and expected time to failure (NaN when p_fail is 0) of hazards (BINS,)."""
    alive = np.cumprod(1 - hazard)
    lost = hazard * np.concatenate([[1.0], alive[:-1]])
    p_fail = float(lost.sum())
    return Survival(p_fail, float(lost @ middles_of(edges) / p_fail) if p_fail > 0 else float("nan"))
