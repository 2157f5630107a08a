"""A data set with nothing wrong with it, for the audit to be spoilt by tests."""

import numpy as np
from lattice_data import action_spec, observation_spec

from failsight.episodes.demonstrations import Demonstration


def drives_to_audit():
    rng = np.random.default_rng(4)
    items = []
    for i in range(24):
        frames = 6
        drift = np.cumsum(rng.normal(0, 0.4, (frames, 3)), 0).clip(-1.9, 1.9).astype(np.float32)
        items.append(
            Demonstration(
                name=f"e{i}",
                instruction=f"go {'left' if i % 2 else 'right'}",
                scenario=f"s{i % 4}",
                images={"cam0": np.zeros((frames, 24, 24, 3), np.uint8)},
                states=rng.standard_normal((frames, 2)).astype(np.float32),
                actions=drift,
            )
        )
    return items, action_spec(3), observation_spec()
