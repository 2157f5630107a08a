"""The policy server over real sockets, and the remote policy that talks to it."""

import asyncio
import json
import threading
import urllib.request

import numpy as np
import pytest
from websockets.sync.client import connect

from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.types import EpisodeKey
from failsight.core.wire import pack, unpack
from failsight.policies.remote.policy import RemotePolicy
from failsight.recipes.serving import key_table, outcome_table
from failsight.runtime.loop import Loop, run_episode
from failsight.runtime.server import PolicyServer
from failsight.testing.fakes import PointPolicy, PointSim


class Running:
    """A server in a thread."""

    def __init__(self, **options):
        self.policy = PointPolicy()
        started = threading.Event()
        self._loop = asyncio.new_event_loop()

        def ready(port):
            self.port = port
            started.set()

        async def main():
            server = PolicyServer(self.policy, keys={"agent": "observation/image"}, **options)
            self._task = asyncio.current_task()
            await server.run("127.0.0.1", 0, ready)

        def work():
            asyncio.set_event_loop(self._loop)
            with pytest.raises(asyncio.CancelledError):
                self._loop.run_until_complete(main())

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        assert started.wait(10)
        self.url = f"ws://127.0.0.1:{self.port}"

    def stop(self):
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)


@pytest.fixture
def running(tmp_path):
    server = Running(outcomes=tmp_path / "outcomes.jsonl")
    yield server
    server.stop()


def observation(**changes):
    spec = PointSim().observation_spec
    _, height, width = spec.cameras[0]
    return {
        "observation/image": np.zeros((height, width, 3), np.uint8),
        "observation/state": np.ones(len(spec.state), np.float32),
        "prompt": "go home",
        **changes,
    }


def talk(url, *messages):
    with connect(url, compression=None, max_size=None) as client:
        metadata = unpack(client.recv())
        replies = []
        for message in messages:
            client.send(pack(message))
            reply = client.recv()
            replies.append(reply if isinstance(reply, str) else unpack(reply))
        return metadata, replies


def test_the_protocol(running):
    metadata, (first, second) = talk(running.url, observation(), observation())
    assert metadata["policy"] == running.policy.fingerprint
    assert first["actions"].shape[1] == len(running.policy.action_spec.dimensions)
    assert "prev_total_ms" not in first["server_timing"]
    assert "prev_total_ms" in second["server_timing"]
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/healthz") as page:
        assert page.read() == b"OK\n"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"prompt": "go"}, "The observation has no"),
        (observation(prompt=""), "needs a 'prompt'"),
        (observation(**{"observation/image": np.zeros((4, 4, 3), np.uint8)}), "has shape (4, 4, 3)"),
        ([1, 2], "is a map"),
    ],
)
def test_bad_observations_are_one_sentence_and_close_the_connection(running, message, words):
    _, (reply,) = talk(running.url, message)
    assert reply.startswith("failsight:")
    assert words in reply
    assert "Traceback" not in reply
    talk(running.url, observation())


def test_outcomes_are_counted_and_unknown_ones_said(running, tmp_path):
    for ends in (["success", "success", "failure"], ["failure", None]):
        messages = []
        for end in ends:
            messages += [observation(reset=True)] + ([] if end is None else [{"outcome": end}])
        talk(running.url, *messages)
    path = tmp_path / "outcomes.jsonl"
    for _ in range(100):
        if path.is_file() and len(path.read_text().splitlines()) == 5:
            break
        threading.Event().wait(0.02)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["outcome"] for row in rows] == ["success", "success", "failure", "failure", "unknown"]
    _, table = outcome_table(path, 0)
    assert table[-1][2] == "4 (1 unknown)"
    assert table[-1][1].startswith("0.50")
    _, chains = outcome_table(path, 3)
    assert chains[-1][1].startswith("2.00")


def test_a_person_is_asked(tmp_path):
    asked = []

    def ask(text):
        asked.append(text)
        return "success"

    server = Running(outcomes=tmp_path / "o.jsonl", ask=ask)
    talk(server.url, observation())
    for _ in range(100):
        if (tmp_path / "o.jsonl").is_file():
            break
        threading.Event().wait(0.02)
    server.stop()
    assert asked == ["episode 0: go home"]
    assert json.loads((tmp_path / "o.jsonl").read_text())["outcome"] == "success"


def test_a_remote_policy_drives_like_a_local_one(running):
    key = EpisodeKey(seed=1, task="home", episode=0)
    local, _ = run_episode(Loop(PointSim(), PointPolicy()), key)
    remote = RemotePolicy(running.url, keys={"agent": "observation/image"})
    there, _ = run_episode(Loop(PointSim(), remote), key)
    assert there.outcome == local.outcome
    assert len(there.kinds) == len(local.kinds)
    with pytest.raises(FailsightError, match="cannot be saved"):
        remote.save_state()
    remote.close()


def test_nobody_there():
    with pytest.raises(FailsightError, match="failsight serve CHECKPOINT"):
        RemotePolicy("ws://127.0.0.1:1")


def test_tables_and_keys_from_people(tmp_path):
    with pytest.raises(FailsightError, match="NAME=KEY"):
        key_table(["agent"])
    assert key_table(["agent=a/b"]) == {"agent": "a/b"}
    with pytest.raises(EpisodeDataError, match="not an outcome file"):
        outcome_table(tmp_path / "nowhere", 0)
