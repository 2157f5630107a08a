import contextlib
import re
import tracemalloc

import msgpack
import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError
from failsight.core.wire import pack, unpack

VECTORS = {
    "81a16184c40b5f5f6e6461727261795f5fc3c40464617461c4080000803f00000040c4056474797065a33c6634c40573686170659102": {
        "a": np.array([1, 2], np.float32)
    },
    "81a17383c40d5f5f6e7067656e657269635f5fc3c40464617461cb3ff8000000000000c4056474797065a33c6634": {
        "s": np.float32(1.5)
    },
    "81a16984c40b5f5f6e6461727261795f5fc3c40464617461c406000000000000c4056474797065a37c7531c405736861706593010203": {
        "i": np.zeros((1, 2, 3), np.uint8)
    },
}
"""Bytes of openpi-client 0.1.2."""


@pytest.mark.parametrize("text", VECTORS)
def test_bytes_are_those_of_openpi(text):
    assert pack(VECTORS[text]).hex() == text
    (name, value), (_, found) = next(iter(VECTORS[text].items())), next(iter(unpack(bytes.fromhex(text)).items()))
    assert np.array_equal(found, value), name


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(EpisodeDataError, match="object"):
        pack({"a": np.array([None])})
    with pytest.raises(EpisodeDataError, match="cannot be sent"):
        pack({"a": object()})
    for damaged in (b"\xc1", pack({"a": np.zeros(4)})[:-3], b""):
        with pytest.raises(EpisodeDataError, match="not whole msgpack"):
            unpack(damaged)


def array(data=b"\0" * 8, dtype="<f4", shape=(2,), **more):
    fields = {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": list(shape), **more}
    return msgpack.packb({"a": fields})


def scalar(value, dtype):
    return msgpack.packb({"a": {b"__npgeneric__": True, b"data": value, b"dtype": dtype}})


def nested(depth):
    return b"\x91" * depth + b"\x01"


HOSTILE = {
    "negative length": (array(shape=(-2,)), "expected lengths"),
    "negative twice": (array(shape=(-1, -2)), "expected lengths"),
    "wider than the data": (array(shape=(2**20, 2**20)), "does not have 8 bytes"),
    "longer than its shape": (array(shape=(1,)), "does not have 8 bytes"),
    "2**64 entries": (array(shape=(2**32 - 1, 2**32 + 1)), "expected lengths"),
    "product wraps to 0": (array(b"", shape=(2**16, 2**16, 2**16, 2**16)), "does not have 0 bytes"),
    "empty but huge": (array(b"", shape=(0, 2**31)), "expected lengths"),
    "many dimensions": (array(b"", shape=(0,) * 40), "expected lengths"),
    "a length of True": (array(shape=(True, 2)), "expected lengths"),
    "a length of 2.0": (array(shape=(2.0,)), "expected lengths"),
    "shape is text": (array(shape="22"), "expected lengths"),
    "data is text": (array("00000000"), "over str"),
    "objects": (array(dtype="|O"), "not received"),
    "structured": (array(dtype="<f4,<f4"), "not received"),
    "subarray": (array(dtype="(1000000000,)f4"), "not received"),
    "void": (array(dtype="|V8"), "not received"),
    "complex": (array(dtype="<c8"), "not received"),
    "text as wide as memory": (array(dtype="<U99999999999"), "not received"),
    "text of no width": (array(b"", dtype="<U0"), "not received"),
    "text outside Unicode": (array(b"\xff\xff\xff\xff", dtype="<U1", shape=()), "does not hold text"),
    "half a surrogate": (array(b"\0\xd8\0\0", dtype="<U1", shape=()), "does not hold text"),
    "type is a number": (array(dtype=4), "not received"),
    "field missing": (msgpack.packb({b"__ndarray__": True, b"data": b""}), "needs the fields"),
    "field too many": (array(**{"more": 1}), "needs the fields"),
    "int8 of 300": (scalar(300, "|i1"), "not a value of type int8"),
    "uint8 of -1": (scalar(-1, "|u1"), "not a value of type uint8"),
    "int of 1.5": (scalar(1.5, "<i8"), "not a value of type int64"),
    "int of text": (scalar("5", "<i8"), "not a value of type int64"),
    "float of a list": (scalar([1, 2], "<f4"), "not a value of type float32"),
    "float32 of 1e300": (scalar(1e300, "<f4"), "not a value of type float32"),
    "bool of 1": (scalar(1, "|b1"), "not a value of type bool"),
    "text cut short": (scalar("abcdef", "<U3"), "not a value of type <U3"),
    "the same key twice": (b"\x82\xa1a\x01\xa1a\x02", "'a' occurs twice"),
    "a number as key": (msgpack.packb({1: 2}), "not whole msgpack"),
    "a list as key": (b"\x81\x91\x01\x02", "not whole msgpack"),
    "deep": (nested(40), "nested more than 16 deep"),
    "deeper than the parser": (nested(5000), "not whole msgpack"),
    "a list longer than its bytes": (b"\xdd\xff\xff\xff\xff", "not whole msgpack"),
    "lists of a million, nested": (b"\xdd\x00\x03\xff\xff" * 900, "not whole msgpack"),
    "a million empty maps": (b"\xdc\xff\xff" + b"\x80" * 65535, None),
    "many million empty maps": (b"\xdc\x00\x64" + (b"\xdc\xff\xff" + b"\x80" * 65535) * 100, "more than 262144 parts"),
    "an extension": (msgpack.packb(msgpack.ExtType(5, b"x")), "extension"),
    "a bad time": (b"\xd7\xff" + b"\xff" * 8, "not whole msgpack"),
    "two messages": (b"\x01\x02", "not whole msgpack"),
    "text that is not UTF-8": (b"\xa1\xff", "not whole msgpack"),
    "longer than a message": (b"\xc6\x02\x00\x00\x00" + b"\0" * 2**25, "at most 33554432"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_are_refused_in_one_sentence_within_bounded_memory(name):
    data, words = HOSTILE[name]
    tracemalloc.start()
    try:
        if words is None:
            unpack(data)
        else:
            with pytest.raises(EpisodeDataError, match=re.escape(words)) as refused:
                unpack(data)
            assert "\n" not in str(refused.value)
            assert len(str(refused.value)) < 300
        assert tracemalloc.get_traced_memory()[1] < 48 * 2**20 or "nested" in name
    finally:
        tracemalloc.stop()


def test_text_is_told_apart():
    with pytest.raises(EpisodeDataError, match="text, not msgpack: failsight: no prompt"):
        unpack("failsight:\nno prompt")


def test_what_is_too_large_to_send_is_refused():
    with pytest.raises(EpisodeDataError, match="Send uint8 pictures"):
        pack({"a": np.zeros(2**25, np.uint8)})
    with pytest.raises(EpisodeDataError, match="cannot be sent"):
        pack(2**70)


def test_scalars_and_text_survive():
    values = [
        np.float32(np.nan),
        np.float16(-np.inf),
        np.int8(-3),
        np.bool_(True),
    ]
    for value, found in zip(values, unpack(pack(values)), strict=True):
        assert (type(found), repr(found)) == (type(value), repr(value))
    for text in ("go", "naïve 机器人"):
        assert unpack(pack({"p": np.array(text)}))["p"].item() == text
        assert unpack(scalar(text, f"<U{len(text)}"))["a"] == text


def test_random_bytes_and_mutations_never_raise_anything_else():
    rng = np.random.default_rng(0)
    good = pack({"prompt": "go", "image": np.zeros((4, 4, 3), np.uint8), "state": np.arange(3.0), "n": np.float32(1)})
    read = 0
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(len(data))] = rng.integers(256)
        with contextlib.suppress(EpisodeDataError):
            unpack(bytes(data))
            read += 1
    assert 0 < read < 3000  # neither by refusing everything nor by taking it
