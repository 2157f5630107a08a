import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import (
    read_array,
    read_count,
    read_number,
    read_picture,
    read_success,
    read_text,
    require_distinct,
    require_increasing,
)


@pytest.mark.parametrize("value", [True, 1, 1.0, "True", " yes ", "1", "SUCCESS", b"true", np.True_, np.array(1)])
def test_known_ways_to_say_success(value):
    assert read_success(value, "x") is True


@pytest.mark.parametrize("value", [False, 0, 0.0, "False", "0", "no", "Failure", np.False_, np.float32(0)])
def test_known_ways_to_say_failure(value):
    assert read_success(value, "x") is False


@pytest.mark.parametrize("value", [-1, 0.4, 2, None, [True], [], "", "maybe", "None", float("nan"), np.array([1]), {}])
def test_what_does_not_say_it_is_refused_with_its_place(value):
    with pytest.raises(EpisodeDataError, match=r"a\.jsonl:3"):
        read_success(value, "a.jsonl:3")


def test_text():
    assert read_text(b" wash ", "x") == "wash"
    assert read_text(np.array("w\u00e4sche"), "x") == "w\u00e4sche"
    for value in ("", "  ", "a\0b", "x" * 5000, 3, None, b"\xff\xfe", ["a"]):
        with pytest.raises(EpisodeDataError):
            read_text(value, "x")


def test_numbers():
    assert read_number(np.float32(2.5), "x") == 2.5
    assert read_count(3.0, "x") == 3
    assert read_count(2**63 - 1, "x") == 2**63 - 1
    for value in (True, "3", None, float("nan"), float("inf"), 10**400, [1]):
        with pytest.raises(EpisodeDataError):
            read_number(value, "x")
    for value in (2.5, -1, 2**70, float("inf")):
        with pytest.raises(EpisodeDataError):
            read_count(value, "x")
    with pytest.raises(EpisodeDataError, match="from 0 to 1"):
        read_number(1.5, "x", 0, 1)


@pytest.mark.parametrize("shape", [(5, 1), (1,), (1, 4), (4, 5), (5, 4, 1), (0, 4)])
def test_nothing_broadcasts(shape):
    with pytest.raises(EpisodeDataError, match="expected shape"):
        read_array(np.zeros(shape), "x", (5, 4))


def test_arrays():
    assert read_array([[1, 2], [3, 4]], "x", (None, 2)).dtype == np.float32
    for value in ([[1, 2], [3]], [["a", "b"]], [[True, False]], [[None, 1]], [[1e300, 0]], [[np.nan, 0]]):
        with pytest.raises(EpisodeDataError):
            read_array(value, "x", (None, 2))
    missing = read_array([[1e300, 0], [np.inf, 1]], "x", (None, 2), finite=False)
    np.testing.assert_array_equal(missing, np.array([[np.nan, 0], [np.nan, 1]], np.float32))
    with pytest.raises(EpisodeDataError, match="expected shape"):
        read_array(np.zeros((0, 2)), "x", (None, 2))


def test_pictures():
    grey = np.full((4, 6, 3), 120, np.uint8)
    np.testing.assert_array_equal(read_picture(grey, "x"), grey)
    np.testing.assert_array_equal(read_picture(grey / np.float32(255), "x"), grey)
    np.testing.assert_array_equal(read_picture(grey.astype(float), "x"), grey)
    np.testing.assert_array_equal(read_picture(grey.transpose(2, 0, 1), "x"), grey)
    for bad in (grey[..., :1], grey[0], grey - 121.0, grey + 0.5, np.full((4, 6, 3), np.nan), grey > 3, grey * 3.0):
        with pytest.raises(EpisodeDataError):
            read_picture(bad, "x")


def test_order_and_repeats():
    require_distinct([1, 2], "x", "episode")
    require_increasing(np.array([0.0, 0.1]), "x")
    with pytest.raises(EpisodeDataError, match="episode 1 occurs twice"):
        require_distinct([1, 1], "x", "episode")
    for bad in ([0, 0], [1, 0], [0, np.nan]):
        with pytest.raises(EpisodeDataError, match="time"):
            require_increasing(np.array(bad), "x")
