"""What openpi's own client gets from our server; run by openpi_client.sh in an environment of its own."""

import sys

import numpy as np
from openpi_client import image_tools
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy

port, token, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
camera = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
padded = {size: image_tools.resize_with_pad(camera, size, size) for size in (224, 64)}
np.savez(out, camera=camera, **{str(size): picture for size, picture in padded.items()})


def client():
    return WebsocketClientPolicy("127.0.0.1", port, api_key=token)


def observation(picture, **changes):
    views = {"observation/image": picture, "observation/wrist_image": picture}
    return {**views, "observation/state": np.zeros(11), "prompt": "put the red cube in the left bin", **changes}


metadata = client().get_server_metadata()
assert {"policy", "execute", "assumptions"} <= set(metadata), metadata
large = client().infer(observation(padded[224]))
assert large["actions"].shape == (10, 7), large["actions"].shape
small = image_tools.resize_with_pad(padded[224], 64, 64)
assert np.array_equal(client().infer(observation(small))["actions"], large["actions"]), "224 is not what its 64 is"
assert np.array_equal(client().infer(observation(small / 255))["actions"], large["actions"]), "floats are not bytes"
broker = ActionChunkBroker(client(), 5)
assert [broker.infer(observation(small))["actions"].shape for _ in range(7)] == [(7,)] * 7


def refusal(call):
    """The words a call is refused with."""
    try:
        call()
    except Exception as error:
        return str(error)
    raise AssertionError("this should have been refused")


said = refusal(lambda: client().infer(observation(small, **{"observation/state": np.full(11, np.nan)})))
assert "entry (0,) is nan" in said, said
assert "Traceback" not in said, said
assert "401" in refusal(lambda: WebsocketClientPolicy("127.0.0.1", port, api_key="wrong"))
print(
    "openpi-client: metadata, actions, padded and float pictures, chunk broker, errors and token are as they should be"
)
