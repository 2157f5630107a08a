"""The policy server over real sockets, and the remote policy that talks to it."""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from live_server import Running, Saying
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.types import EpisodeKey, Task
from failsight.core.wire import pack, unpack
from failsight.policies.remote.policy import RemotePolicy
from failsight.runtime.loop import Loop, run_episode
from failsight.serving import server as server_module
from failsight.testing.checks import WORDINGS, make_observations
from failsight.testing.fakes import ACTIONS, OBSERVATIONS, PointPolicy, PointSim
from failsight.workflows.serve import key_table, outcome_table
from failsight.workflows.wiring import make_policy

KEYS = {"agent": "observation/image"}


@pytest.fixture
def running(tmp_path):
    server = Running(PointPolicy(), keys=KEYS, outcomes=tmp_path / "outcomes.jsonl")
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

    server = Running(PointPolicy(), keys=KEYS, outcomes=tmp_path / "o.jsonl", ask=ask)
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
    assert running.policy._key == key, "random draws there must be those here"
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


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("hello", "binary msgpack, not text"),
        (b"\xc1", "not whole msgpack"),
        (pack({"outcome": "success"}), "no episode is running"),
        (pack(observation(prompt="a\nTraceback", step="\x1b[31m")), "step: expected"),
        (pack({"Traceback\n\x1b[2J" * 50: 1, "prompt": "go"}), "has no"),
    ],
)
def test_bad_frames_are_one_printable_sentence(running, message, words):
    with connect(running.url, compression=None) as client:
        client.recv()
        client.send(message)
        reply = client.recv(timeout=5)
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=5)
    assert words in reply
    assert reply.isprintable()
    assert len(reply) < 500


@pytest.mark.parametrize("words", ["yes please", 0.4, -1, None, ["success"]])
def test_an_outcome_that_means_nothing_is_refused_and_the_episode_stays_unknown(running, tmp_path, words):
    _, replies = talk(running.url, observation(), {"outcome": words})
    assert "outcome" in replies[-1] or "success is" in replies[-1]
    assert [row["outcome"] for row in rows(tmp_path / "outcomes.jsonl", 1)] == ["unknown"]


def rows(path, count):
    """The lines of an outcome file, once there are `count` of them."""
    for _ in range(250):
        if path.is_file() and len(path.read_text().splitlines()) >= count:
            break
        time.sleep(0.02)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_episodes_ended_by_reset_are_written_with_what_the_client_says(running, tmp_path):
    talk(
        running.url,
        observation(),
        observation(executed=2),
        observation(reset=True, executed=1),
        observation(reset=True, outcome=True, prompt="again"),
        {"outcome": "failure", "executed": 0},
        observation(),
    )
    found = rows(tmp_path / "outcomes.jsonl", 4)
    assert [(r["episode"], r["steps"], r["steps_from"], r["outcome"]) for r in found] == [
        (0, 3, "client", "unknown"),
        (1, 3, "assumed", "success"),
        (2, 0, "client", "failure"),
        (3, 3, "assumed", "unknown"),
    ]
    assert len({r["run"] for r in found}) == 1


def test_a_person_is_asked_about_episodes_ended_by_reset(tmp_path):
    asked = []
    server = Running(
        PointPolicy(), keys=KEYS, outcomes=tmp_path / "o.jsonl", ask=lambda text: asked.append(text) or "success"
    )
    talk(server.url, observation(prompt="go [/bold]\nhome"), observation(reset=True), {"outcome": "failure"})
    found = rows(tmp_path / "o.jsonl", 2)
    server.stop()
    assert asked == ["episode 0: go [/bold] home"]
    assert [r["outcome"] for r in found] == ["success", "failure"]


def test_restarts_have_their_own_number(tmp_path):
    for _ in range(2):
        server = Running(PointPolicy(), keys=KEYS, outcomes=tmp_path / "o.jsonl")
        talk(server.url, observation())
        server.stop()
    found = rows(tmp_path / "o.jsonl", 2)
    assert [r["session"] for r in found] == [0, 0]
    assert len({r["run"] for r in found}) == 2
    assert outcome_table(tmp_path / "o.jsonl", 2)[1][-1][2].startswith("0 (2 left out")


def test_nothing_that_is_not_finite_is_sent():
    server = Running(PointPolicy(bad_from=3), keys=KEYS)
    _, replies = talk(server.url, observation(), observation())
    server.stop()
    assert np.isfinite(replies[0]["actions"]).all()
    assert replies[1] == (
        "failsight: The policy gave no actions to send: chunk: entry (0, 0) is nan; expected finite numbers."
    )


def test_a_failing_policy_shows_clients_no_traceback(caplog):
    class Broken(PointPolicy):
        def infer(self, observation, step):
            raise ZeroDivisionError("in the middle")

    server = Running(Broken(), keys=KEYS)
    _, (reply,) = talk(server.url, observation())
    server.stop()
    assert reply == "failsight: the server failed (ZeroDivisionError); its log says how."
    assert any(record.exc_info for record in caplog.records), "our own bug is for the log"


def test_a_mute_client_is_hung_up_on_and_a_slow_inference_is_not(monkeypatch):
    class Slow(PointPolicy):
        def infer(self, observation, step):
            time.sleep(1.0)
            return super().infer(observation, step)

    monkeypatch.setattr(server_module, "_SEND_S", 1.0)
    server = Running(Slow(), keys=KEYS, idle_s=0.4)
    with connect(server.url, compression=None, ping_interval=0.1, ping_timeout=None) as client:
        client.recv()
        client.send(pack(observation()))
        assert "actions" in unpack(client.recv(timeout=5)), "an inference may take longer than a client may be mute"
        assert "No message came for 0.4 s" in client.recv(timeout=5)
    server.stop()


def test_a_message_over_the_limit_closes_its_connection_only(running):
    with connect(running.url, compression=None) as client:
        client.recv()
        with contextlib.suppress(ConnectionClosed):
            client.send(b"\0" * (33 * 2**20))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=5)
    assert closed.value.sent.code == 1009 or closed.value.rcvd.code == 1009
    talk(running.url, observation())


def test_too_many_connections_are_turned_away(running, monkeypatch):
    monkeypatch.setattr(server_module, "CONNECTIONS", 2)
    with connect(running.url, compression=None) as one, connect(running.url, compression=None) as two:
        one.recv(), two.recv()
        with pytest.raises(InvalidStatus) as refused:
            connect(running.url, compression=None).__enter__()
        assert refused.value.response.status_code == 503
        with pytest.raises(FailsightError, match="503"):
            RemotePolicy(running.url)


def test_web_pages_are_turned_away(running):
    with pytest.raises(InvalidStatus) as refused:
        connect(running.url, compression=None, origin="https://evil.example").__enter__()
    assert refused.value.response.status_code == 403


def test_a_token_is_asked_for_and_sent(caplog):
    server = Running(PointPolicy(), host="0.0.0.0", keys=KEYS, token="secret")
    assert "unencrypted" in caplog.text
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz") as page:
        assert page.read() == b"OK\n"
    for token in ("", "wrong"):
        with pytest.raises(FailsightError, match=r"401.*FAILSIGHT_TOKEN"):
            RemotePolicy(server.url, token=token)
    RemotePolicy(server.url, token="secret").close()
    header = {"Authorization": "Api-Key secret"}  # what openpi's own client can send
    with connect(server.url, compression=None, additional_headers=header) as client:
        client.recv()
    server.stop()


def test_addresses_that_cannot_be_served(tmp_path):
    assert "--token" in str(Running(PointPolicy(), host="0.0.0.0").error)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = Running(PointPolicy())  # another port is fine
        found.stop()
        import asyncio

        with pytest.raises(FailsightError, match="choose another --host or --port"):
            asyncio.run(server_module.PolicyServer(PointPolicy()).run("127.0.0.1", taken.getsockname()[1]))
    (tmp_path / "file").write_text("")
    assert "cannot be written" in str(Running(PointPolicy(), outcomes=tmp_path / "file" / "o.jsonl").error)


GREETING = {
    "policy": "there",
    "action_spec": ACTIONS.as_dict(),
    "observation_spec": OBSERVATIONS.as_dict(),
    "execute": 2,
    "fields": ["reset", "step", "executed", "key"],
}
CHUNK = np.arange(20, dtype=np.float64).reshape(5, 4)
SEEN = {"observation.state": np.zeros(4, np.float32), "observation.images.agent": np.zeros((16, 16, 3), np.uint8)}


def greeting(**changes):
    return pack({**GREETING, **changes})


def ask(*answers, greet=None, timeout_s=0.5, pause_s=0.0):
    """What a remote policy makes of answers, one inference each."""
    server = Saying(lambda number: [greet or greeting(), *answers])
    try:
        policy = RemotePolicy(server.url, timeout_s=timeout_s, first_timeout_s=timeout_s)
        policy.reset(PointSim().task, EpisodeKey(seed=1, task="home", episode=0))
        outputs = []
        for step in range(len(answers)):
            outputs.append(policy.infer(SEEN, step))
            time.sleep(pause_s)
        policy.close()
        policy.close()
        return outputs
    finally:
        server.stop()


def test_a_failure_head_is_read_by_name():
    said = {"replan": 0.5, "time_to_failure": 40.0, "p_fail": 0.25}
    (output,) = ask(pack({"actions": CHUNK, "failure": said}))
    assert output.failure.tolist() == [0.25, 40.0, 0.5]
    assert output.chunk.dtype == np.float32
    np.testing.assert_array_equal(output.chunk, CHUNK)


async def hang_up(connection):
    await connection.close()


async def twice(connection):
    for _ in range(2):
        await connection.send(pack({"actions": CHUNK}))
    await connection.ping()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (pack({"actions": CHUNK[0]}), r"expected shape \(any, 4\), found \(4,\)"),
        (pack({"actions": CHUNK[:, :1]}), r"expected shape \(any, 4\), found \(5, 1\)"),
        (pack({"actions": CHUNK[:, :3]}), r"found \(5, 3\)"),
        (pack({"actions": CHUNK[None]}), r"found \(1, 5, 4\)"),
        (pack({"actions": np.zeros((0, 4))}), r"found \(0, 4\)"),
        (pack({"actions": CHUNK[:1]}), "1 came and 2 are executed"),
        (pack({"actions": CHUNK + np.nan}), r"entry \(0, 0\) is nan"),
        (pack({"actions": CHUNK.astype(str)}), "expected numbers"),
        (pack({"actions": "stop"}), "expected numbers"),
        (pack({"action": CHUNK}), "actions: expected"),
        (pack([CHUNK]), "no map but list"),
        (pack({"actions": CHUNK, "failure": [0.1, 2, 0.1]}), "expected a map of p_fail"),
        (pack({"actions": CHUNK, "failure": {"p_fail": 0.1}}), "expected a map of p_fail"),
        (pack({"actions": CHUNK, "failure": {"p_fail": 1.5, "time_to_failure": 2, "replan": 0}}), "from 0 to 1"),
        (pack({"actions": CHUNK, "failure": {"p_fail": "0", "time_to_failure": 2, "replan": 0}}), "expected a number"),
        (b"\xc1", "sent answer that cannot be read"),
        (
            "Traceback (most recent call last):\n  File x\nValueError: no \x1b[31m such camera\n",
            "refused: ValueError: no",
        ),
        ("", "refused: "),
        (None, "no answer within 0.5 s; give RemotePolicy a longer timeout_s"),
        (hang_up, "closed the connection"),
    ],
)
def test_answers_that_mean_nothing_are_refused_in_one_sentence(answer, words):
    with pytest.raises(FailsightError, match=words) as refused:
        ask(answer)
    assert str(refused.value).isprintable()


def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one():
    with pytest.raises(FailsightError, match="spoke without being asked"):
        ask(twice, pack({"actions": CHUNK}), pause_s=0.3)


@pytest.mark.parametrize(
    ("greet", "words"),
    [
        (pack([]), "no map but list"),
        (pack({}), "give action_spec and observation_spec"),
        ("Traceback\nRuntimeError: full", "refused: RuntimeError: full"),
        (b"\xdd\xff\xff\xff\xff", "cannot be read"),
        (greeting(execute="3"), "execute: expected a number"),
        (greeting(execute=2.5), "execute: expected a whole number"),
        (greeting(execute=-1), "execute: expected"),
        (greeting(policy=["x"]), "policy: expected text"),
        (greeting(action_spec=5), "action_spec: expected dimensions"),
        (greeting(action_spec={**GREETING["action_spec"], "rate_hz": "20"}), "rate_hz: expected a number"),
        (greeting(action_spec={**GREETING["action_spec"], "extra": 1}), "action_spec: expected"),
        (greeting(action_spec={**GREETING["action_spec"], "dimensions": "abc"}), "dimensions: expected a list"),
        (greeting(action_spec={**GREETING["action_spec"], "dimensions": [5]}), r"dimensions\[0\]: expected"),
        (greeting(observation_spec={"state": "xyz", "cameras": []}), "state: expected a list"),
        (greeting(observation_spec={"state": [], "cameras": [["a", 10**9, 4]]}), r"cameras\[0\]: expected"),
        (greeting(observation_spec={"state": ["x", "x"], "cameras": []}), "'x' occurs twice"),
    ],
)
def test_metadata_is_read_not_cast(greet, words):
    with pytest.raises(FailsightError, match=words):
        ask(greet=greet)


def test_another_policy_behind_the_same_address_is_noticed():
    greetings = [greeting(), greeting(policy="other")]
    server = Saying(lambda number: [greetings[number]])
    policy = RemotePolicy(server.url)
    with pytest.raises(FailsightError, match="another policy than before"):
        policy.reset(PointSim().task, EpisodeKey(seed=1, task="home", episode=0))
    with pytest.raises(FailsightError, match="call reset"):
        policy.infer(SEEN, 0)
    server.stop()


def test_servers_that_are_not_ours_are_told_nothing_beyond_the_protocol():
    heard = []

    def script(number):
        async def listen(connection):
            await connection.send(pack({}))
            heard.append(unpack(await connection.recv()))
            await connection.send(pack({"actions": CHUNK, "failure": "somebody else's word"}))

        return [listen]

    server = Saying(script)
    policy = RemotePolicy(server.url, ACTIONS, OBSERVATIONS, execute=5)
    policy.reset(PointSim().task, EpisodeKey(seed=1, task="home", episode=0))
    assert policy.infer(SEEN, 0).failure is None
    policy.close()
    with pytest.raises(FailsightError, match="sees agent, state"):
        RemotePolicy(server.url, ACTIONS, OBSERVATIONS, keys={"agnt": "x"})
    server.stop()
    assert set(heard[0]) == {"prompt", "observation/image", "observation/state"}


def test_re_instruction_reaches_the_policy_behind_the_server(running):
    policy = RemotePolicy(running.url, keys=KEYS)
    policy.reset(PointSim().task, EpisodeKey(seed=1, task="home", episode=0))
    policy.infer(SEEN, 0)
    policy.reinstruct("come back")
    policy.infer(SEEN, 3)
    policy.close()
    assert running.policy._instruction == "come back"
    assert running.policy._key.seed == 1, "still the same episode"


def test_a_server_that_takes_nothing_is_given_up(monkeypatch):
    from failsight.policies.remote import policy as remote_module

    async def deaf(connection):
        await connection.send(greeting())
        connection.transport.pause_reading()

    monkeypatch.setattr(remote_module, "_SEND_S", 1)
    server = Saying(lambda number: [deaf])
    policy = RemotePolicy(server.url, timeout_s=1, first_timeout_s=1)
    policy.observation_spec = type(OBSERVATIONS)(state=OBSERVATIONS.state, cameras=(("agent", 2000, 2000),))
    began = time.monotonic()
    with pytest.raises(FailsightError, match=r"closed the connection|no answer"):
        policy.infer({**SEEN, "observation.images.agent": np.zeros((2000, 2000, 3), np.uint8)}, 0)
    assert time.monotonic() - began < 8
    server.stop()


@pytest.mark.parametrize("url", ["ws://", "ws://host:99999", "ws://bad host", "http://127.0.0.1:1", "ws://[::1"])
def test_addresses_that_are_none(url):
    with pytest.raises(FailsightError, match="failsight serve CHECKPOINT"):
        RemotePolicy(url)


def test_clients_in_turns_get_what_the_same_policy_says_alone_to_the_bit():
    policy, local = make_policy("tabletop-weak"), make_policy("tabletop-weak")
    task = Task(id="t", suite="s", instruction="", horizon=100)
    episodes = [
        (replace(task, instruction=text), EpisodeKey(seed=i, task="t", episode=0)) for i, text in enumerate(WORDINGS)
    ]
    seen = [make_observations(policy.observation_spec, 3, seed) for seed in range(3)]
    alone = []
    for (given, key), observations in zip(episodes, seen, strict=True):
        local.reset(given, key)
        alone.append([local.infer(o, 5 * t).chunk for t, o in enumerate(observations)])
    server = Running(policy)
    clients = [RemotePolicy(server.url) for _ in episodes]
    for client, (given, key) in zip(clients, episodes, strict=True):
        client.reset(given, key)
    for t in range(3):
        for client, observations, expected in zip(clients, seen, alone, strict=True):
            np.testing.assert_array_equal(client.infer(observations[t], 5 * t).chunk, expected[t])
    for client in clients:
        client.close()
    server.stop()


def test_neither_side_hangs_up_for_a_missing_pong(monkeypatch):
    """A busy event loop answers no ping; 40 s into a first inference the library's default would end it."""
    options = {}

    def serve(*arguments, **given):
        options.update(given)
        return real(*arguments, **given)

    real = server_module.serve
    monkeypatch.setattr(server_module, "serve", serve)
    server = Running(PointPolicy(), keys=KEYS)
    assert options["ping_timeout"] is None
    policy = RemotePolicy(server.url, keys=KEYS)
    assert policy._connection.ping_timeout is None
    policy.close()
    server.stop()


def test_a_server_that_is_busy_in_its_loop_is_waited_for():
    async def busy(connection):
        time.sleep(1.5)
        await connection.send(pack({"actions": CHUNK}))

    (output,) = ask(busy, timeout_s=5.0)
    np.testing.assert_array_equal(output.chunk, CHUNK)
