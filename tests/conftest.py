import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

from failsight.core.types import EpisodeKey
from failsight.predictors.features import Whitening
from failsight.predictors.hazard import BINS
from failsight.signals.bank import SIGNAL_NAMES


@pytest.fixture
def key():
    return EpisodeKey(seed=3, task="home", episode=1)


def recurrent_arrays(hidden=6, actions=4, members=2, units=8, seed=0):
    """Random weights of a small recurrent predictor."""
    rng = np.random.default_rng(seed)
    inputs, outputs = len(SIGNAL_NAMES) + hidden, BINS + 4 + actions

    def draw(*shape):
        return (0.4 * rng.standard_normal(shape)).astype(np.float32)

    whitening = Whitening.fit(
        rng.random((50, len(SIGNAL_NAMES))), rng.standard_normal((50, hidden)) if hidden else None
    )
    return {
        "mean": whitening.mean,
        "scale": whitening.scale,
        "signals": np.array([len(SIGNAL_NAMES)]),
        "enter_w": draw(members, units, inputs),
        "enter_b": draw(members, units),
        "gru_x": draw(members, 3 * units, units),
        "gru_h": draw(members, 3 * units, units),
        "bias_x": draw(members, 3 * units),
        "bias_h": draw(members, 3 * units),
        "head_w": draw(members, outputs, units),
        "head_b": draw(members, outputs),
    }
