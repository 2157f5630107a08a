import numpy as np
import pytest

from failsight.core.types import PolicyOutput, Step
from failsight.signals.sampling import SAMPLING_COLUMNS, SamplingSignals
from failsight.testing.fakes import ACTIONS


def step(samples, replan=True, log_prob=None, cursor=0):
    chunk = np.zeros((6, 4), np.float32)
    output = PolicyOutput(chunk=chunk, samples=samples, log_prob=log_prob)
    return Step(index=0, state=np.zeros(4, np.float32), action=chunk[0], output=output, cursor=cursor, replan=replan)


def values(stream, s):
    out = np.empty(len(SAMPLING_COLUMNS))
    stream.update(s, out)
    return dict(zip(stream.names, out, strict=True))


def test_equal_samples_have_no_entropy_and_no_distance():
    stream, samples = SamplingSignals(ACTIONS), np.full((8, 6, 4), 0.3, np.float16)
    first = values(stream, step(samples))
    assert first["stac"] == first["cluster_entropy"] == first["action_entropy"] == 0
    second = values(stream, step(samples))
    assert second["stac"] == pytest.approx(0)
    assert np.isnan(second["token_nll"])


def test_two_groups_are_one_bit_and_a_change_of_mind_is_a_distance():
    stream = SamplingSignals(ACTIONS)
    samples = np.zeros((8, 6, 4), np.float16)
    samples[4:, :, :3] = 1
    groups = values(stream, step(samples))
    assert groups["cluster_entropy"] == pytest.approx(1)
    assert groups["action_entropy"] > 0.9
    moved = values(stream, step(np.full((8, 6, 4), -1, np.float16)))
    assert moved["stac"] > 0.3
    held = values(stream, step(np.zeros((8, 6, 4), np.float16), replan=False))
    assert held["stac"] == moved["stac"]


def test_no_samples_is_not_zero():
    out = values(SamplingSignals(ACTIONS), step(None, log_prob=-2.0))
    assert np.isnan(out["stac"])
    assert np.isnan(out["cluster_entropy"])
    assert out["token_nll"] == 2.0


def test_samples_that_share_no_step_have_no_distance():
    stream, samples = SamplingSignals(ACTIONS), np.zeros((8, 6, 4), np.float16)
    values(stream, step(samples))
    for cursor in range(1, 6):
        values(stream, step(samples, replan=False, cursor=cursor))
    assert values(stream, step(samples + np.float16(1)))["stac"] == 0
