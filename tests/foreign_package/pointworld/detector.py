"""How much further from home the point is than successful episodes usually were at that step."""

import numpy as np

from failsight.core.specs import Access
from failsight.core.types import FAILURE_TYPES, Risk
from failsight.predictors.detector import Detector


class StillFar:
    name = "ledger"
    """Also the name of a predictor of failsight; a bundle must not mistake one for the other."""
    hidden_size = 2

    def __init__(self, arrays):
        self.arrays = dict(arrays)
        self.reset("")

    def reset(self, task):
        self._step = 0

    def update(self, signals, hidden):
        usual = self.arrays["usual"]
        excess = float(np.hypot(*np.asarray(hidden, np.float64))) - float(usual[min(self._step, len(usual) - 1)])
        self._step += 1
        return Risk(p_fail=float("nan"), evidence=excess, type=np.full(len(FAILURE_TYPES), np.nan))

    def save_state(self):
        return {"step": np.array(self._step)}

    def load_state(self, state):
        self._step = int(state["step"])


def fit(data):
    """The median distance of successful training episodes still running at each step."""
    good = [np.hypot(*np.asarray(s.hidden, np.float64).T) for s in data.train if not s.failed]
    steps = max(len(distance) for distance in good)
    usual = [np.median([distance[t] for distance in good if t < len(distance)]) for t in range(steps)]
    return StillFar({"usual": np.array(usual)})


DETECTOR = Detector(title="still far from home", source="pointworld", access=Access.HIDDEN, fit=fit)
