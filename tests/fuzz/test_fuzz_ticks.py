"""Whatever is brought to a protector: it never raises within an episode, and never sends what is not finite and in range."""

import numpy as np
from fuzz_budget import at_most, cases

from failsight.core.types import PolicyOutput
from failsight.runtime.protector import Protector
from failsight.testing import fakes
from failsight.testing.fakes import ACTIONS, OBSERVATIONS

GOOD = np.array([0.5, 0.2, 0.1, 1.0], np.float32)
CHUNK = np.tile(np.array([0.1, 0.2, 0.3, -1.0], np.float32), (6, 1))
NOTHING = [
    None,
    np.nan,
    "",
    "left",
    b"\0",
    [],
    {},
    object(),
    np.zeros((0, 4)),
    np.zeros((2, 3)),
    10**30,
    True,
    [[1], [1, 2]],
]


def state(rng):
    kind = rng.integers(8)
    if kind < 4:
        return {"observation.state": GOOD + 0.1 * rng.standard_normal(4).astype(np.float32), "front": rng.bytes(8)}
    if kind == 4:
        return {"observation.state": np.where(rng.random(4) < 0.3, rng.choice([np.nan, np.inf, 1e38]), GOOD)}
    if kind == 5:
        return {"observation.state": rng.choice(np.array(NOTHING, object))}
    return GOOD.astype(np.float64) if kind == 6 else rng.choice(np.array(NOTHING, object))


def output(rng):
    kind = rng.integers(8)
    if kind < 3:
        return None
    if kind < 5:
        return PolicyOutput(chunk=CHUNK, hidden=np.ones(8), samples=np.stack([CHUNK] * 3))
    if kind == 5:
        return np.where(rng.random((6, 4)) < 0.1, rng.choice([np.nan, np.inf, -9.0, 1e30]), CHUNK)
    return CHUNK[0] if kind == 6 else rng.choice(np.array(NOTHING, object))


def test_garbage_at_any_tick_is_a_hold_or_a_stop():
    for case in cases(2000):
        rng = np.random.default_rng(case)
        protector = Protector(
            fakes.make_monitor(fakes_predictor(), rule(), 0.5),
            rungs=[["slow"], ["retry"], ["takeover"], ["safe_stop"], []][rng.integers(5)],
            actions=ACTIONS,
            observations=OBSERVATIONS,
            execute=int(rng.integers(0, 9)),
            cameras=["front"] if rng.random() < 0.3 else [],
            clock=iter(np.cumsum(rng.exponential(0.03, 10_000))).__next__ if rng.random() < 0.7 else None,
        )
        with at_most(5):
            drive(protector, rng, case)


def drive(protector, rng, case):
    protector.start("home")
    protector.step(GOOD, PolicyOutput(chunk=CHUNK, hidden=np.ones(8), samples=np.stack([CHUNK] * 3)))
    stopped = False
    for tick in range(20):
        calm = rng.random() < 0.7
        seen, said = (GOOD, None) if calm else (state(rng), output(rng))
        index = None if rng.random() < 0.8 else rng.choice([tick, tick - 3, tick + 5, -1, np.nan, 2.5, "x"])
        time_s = None if rng.random() < 0.8 else rng.choice([0.05 * tick, -1e9, np.nan, np.inf])
        command = protector.step(seen, said, index=index, time_s=time_s)
        assert command.action is not None, case
        assert np.isfinite(command.action).all(), case
        assert (command.action >= ACTIONS.low).all(), case
        assert (command.action <= ACTIONS.high).all(), case
        assert command.stop or not stopped, f"{case}: a robot that was stopped moves again"
        assert command.why or not command.stop, f"{case}: a stop without a word"
        stopped = command.stop
    protector.end(None)


def rule():
    from failsight.monitor.trigger import TriggerRule

    return TriggerRule(needed=2, window=3)


def fakes_predictor():
    from conftest import recurrent_arrays

    from failsight.predictors.recurrent import RecurrentPredictor

    return RecurrentPredictor(recurrent_arrays(hidden=8))
