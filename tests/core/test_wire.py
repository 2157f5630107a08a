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
