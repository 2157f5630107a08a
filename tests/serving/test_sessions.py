"""What a client's messages mean to the policy server, without the sockets around it."""

import json

import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError, FailsightError, StorageError
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.types import EpisodeKey, PolicyOutput
from failsight.serving.client_message import Session
from failsight.serving.door import admit, is_loopback, read_port, require_token
from failsight.serving.outcome_file import OutcomeFile
from failsight.serving.server import PolicyServer
from failsight.workflows.serve import key_table, make_server, outcome_table
from failsight.workflows.wiring import make_policy


class Spy:
    """Remembers what the server tells a policy; its memory is the instruction and the steps it saw."""

    fingerprint, execute = "spy", 2
    action_spec = ActionSpec(
        dimensions=tuple(Dimension(name=n, kind="delta", unit="") for n in "xy"),
        frame="",
        rate_hz=10,
        gripper_closed_sign=1,
    )
    observation_spec = ObservationSpec(state=("a", "b"), cameras=(("front", 8, 12),))

    def __init__(self, chunk=None, failure=None):
        self.log, self.seen, self.key, self.text = [], [], None, ""
        self.chunk = np.zeros((4, 2), np.float32) if chunk is None else np.asarray(chunk)
        self.failure = failure

    def reset(self, task, key):
        self.text, self.key, self.seen = task.instruction, key, []
        self.log.append(f"reset {self.text}")

    def reinstruct(self, instruction):
        self.text = instruction
        self.log.append(f"reinstruct {instruction}")

    def infer(self, observation, step):
        self.observation = observation
        self.seen.append(step)
        return PolicyOutput(chunk=self.chunk, failure=self.failure)

    def save_state(self):
        return json.dumps([self.text, self.seen, None if self.key is None else self.key.as_dict()]).encode()

    def load_state(self, state):
        self.text, self.seen, key = json.loads(state)
        self.key = None if key is None else EpisodeKey.from_dict(key)


def message(prompt="go", **changes):
    picture = np.full((8, 12, 3), 7, np.uint8)
    return {"prompt": prompt, "observation/image": picture, "observation/state": np.zeros(2, np.float32), **changes}


def served(*messages, **options):
    policy = Spy()
    server, session = PolicyServer(policy, **options), Session(0)
    for given in messages:
        server._infer(session, message(**given))
    return policy, session


def test_without_a_word_the_server_assumes_and_says_so():
    policy, session = served({}, {}, {})
    assert policy.seen == [0, 2, 4]
    assert not session.told
    said = PolicyServer(policy).metadata
    assert "2 actions are taken as executed" in said["assumptions"]["step"]
    assert said["fields"] == ["prompt", "reset", "step", "executed", "outcome", "key"]


@pytest.mark.parametrize(
    ("messages", "steps", "episodes"),
    [
        ([{"step": 0}, {"step": 5}, {"step": 9}], [0, 5, 9], 1),
        ([{}, {"executed": 3}, {"executed": 1}], [0, 3, 4], 1),
        ([{"step": 4}, {"executed": 3, "step": 7}], [4, 7], 1),
        ([{}, {"executed": 1}, {}], [0, 1, 3], 1),
        ([{"step": 0}, {"step": 5}, {"step": 0}], [0], 2),
        ([{"step": 0}, {"step": 9}, {"step": 3}], [3], 2),
        ([{}, {}, {"reset": True}, {}], [0, 2], 2),
        ([{}, {"reset": np.bool_(True)}, {"reset": 1}], [0], 3),
        ([{}, {}, {"prompt": "another"}], [0], 2),
        ([{}, {"prompt": "another", "reset": False}], [0, 2], 1),
        ([{"step": 0}, {"prompt": "another", "step": 5}], [0, 5], 1),
        ([{}, {"prompt": "another", "executed": 2}], [0, 2], 1),
        ([{"reset": False}, {"reset": False}], [0, 2], 1),
    ],
)
def test_episodes_and_steps_come_from_the_client_where_given(messages, steps, episodes):
    policy, session = served(*messages)
    assert policy.seen == steps
    assert session.episode + 1 == episodes


def test_a_new_prompt_re_instructs_or_begins_an_episode():
    assert served({}, {"prompt": "left"})[0].log == ["reset go", "reset left"]
    assert served({}, {"prompt": "left", "reset": False})[0].log == ["reset go", "reinstruct left"]
    assert served({}, {"prompt": " go "})[0].log == ["reset go"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": ""}, "needs a 'prompt'"),
        ({"prompt": None}, "needs a 'prompt'"),
        ({"prompt": 7}, "prompt: expected text"),
        ({"prompt": ["go"]}, "prompt: expected text"),
        ({"prompt": "x" * 1001}, "1001 characters"),
        ({"prompt": "a\0b"}, "broken character"),
        ({"prompt": "clear \x1b[2J"}, "control characters"),
        ({"prompt": "half \ud800"}, "broken character"),
        ({"reset": "false"}, "reset: expected true or false"),
        ({"reset": 2}, "reset: expected true or false"),
        ({"step": -1}, "step: expected"),
        ({"step": 1.5}, "step: expected a whole number"),
        ({"step": "3"}, "step: expected a number"),
        ({"step": True}, "step: expected a number"),
        ({"executed": float("nan")}, "executed: expected"),
        ({"executed": "3", "reset": True}, "executed: expected a number"),
        ({"executed": 2**63}, "executed: expected"),
        ({"step": 5, "executed": 4}, "leave one of them out"),
        ({"step": 1, "reset": False}, "step went back from 2 to 1"),
        ({"key": [1, 2]}, "key: expected a map"),
        ({"key": {"seed": 0, "task": "t", "episode": -1}}, "key.episode"),
        ({"observation/state": np.zeros(3)}, "observation/state: expected shape (2)"),
        ({"observation/state": np.zeros((1, 2))}, "expected shape (2)"),
        ({"observation/state": np.zeros((2, 1))}, "expected shape (2)"),
        ({"observation/state": np.array([0, np.nan])}, "entry (1,) is nan"),
        ({"observation/state": np.array([np.inf, 0])}, "entry (0,) is inf"),
        ({"observation/state": ["1", "2"]}, "expected numbers"),
        ({"observation/state": np.array([True, False])}, "expected numbers"),
        ({"observation/state": None}, "has no 'observation/state'"),
        ({"observation/image": "picture"}, "a picture is"),
        ({"observation/image": [[1], [1, 2]]}, "differ in length"),
        ({"observation/image": np.zeros((8, 12, 4), np.uint8)}, "a picture is"),
        ({"observation/image": np.zeros((8, 12), np.uint8)}, "a picture is"),
        ({"observation/image": np.full((8, 12, 3), -0.5)}, "floats 0 to 1"),
        ({"observation/image": np.full((8, 12, 3), 300)}, "floats 0 to 1"),
        ({"observation/image": np.full((8, 12, 3), np.nan)}, "floats 0 to 1"),
        ({"observation/image": np.zeros((3, 5, 3), np.uint8)}, "enlarged 2 times at most"),
        ({"observation/image": np.zeros((2, 3000, 3), np.uint8)}, "at most 2048 a side"),
    ],
)
def test_what_means_nothing_is_refused_and_changes_nothing(changes, words):
    policy = Spy()
    server, session = PolicyServer(policy), Session(0)
    server._infer(session, message(step=2))
    before = session.memory
    with pytest.raises(EpisodeDataError) as refused:
        server._infer(session, message(**changes))
    assert words in str(refused.value)
    assert session.memory == before
    server._infer(session, message(step=4))
    assert policy.seen == [2, 4]


def test_an_episode_needs_its_prompt_said_again():
    server, session = PolicyServer(Spy()), Session(0)
    server._infer(session, message())
    again = message(reset=True)
    del again["prompt"]
    with pytest.raises(EpisodeDataError, match="needs a 'prompt'"):
        server._infer(session, again)


def test_pictures_are_scaled_turned_and_padded():
    def seen(picture):
        policy = Spy()
        PolicyServer(policy)._infer(Session(0), message(**{"observation/image": picture}))
        return policy.observation["observation.images.front"]

    picture = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    for same in (
        picture,
        picture / 255,
        (picture / 255).astype(np.float32),
        picture.astype(np.int64),
        picture.tolist(),
    ):
        np.testing.assert_array_equal(seen(same), picture)
    np.testing.assert_array_equal(seen(picture.transpose(2, 0, 1)), picture)
    square = seen(np.full((224, 224, 3), 0.4, np.float32))  # fits 8 x 8 into 8 x 12: two black columns at each side
    assert square[:, 2:10].min() == square.max() == 102
    assert square[:, :2].max() == square[:, 10:].max() == 0


def test_states_far_outside_the_training_data_are_refused():
    policy = make_policy("tabletop-strong")
    reader = PolicyServer(policy)._reader
    low, high = policy.state_range
    pictures = {f"observation.images.{n}": np.zeros((h, w, 3), np.uint8) for n, h, w in policy.observation_spec.cameras}
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 0.06)
    for edge in (-9.9, 0.0, 9.9):
        reader.observation({**pictures, "observation.state": middle + edge * half})
    for i in range(len(middle)):
        state = middle.copy()
        state[i] += 10.1 * half[i]
        with pytest.raises(EpisodeDataError, match=f"{policy.observation_spec.state[i]} is .* Check units"):
            reader.observation({**pictures, "observation.state": state})
    assert "10 training half ranges" in reader.assumptions["state"]
    assert "finite" in PolicyServer(Spy()).metadata["assumptions"]["state"]


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        (np.array([[0, np.nan], [0, 0]]), "entry (0, 1) is nan"),
        (np.array([[0, 0], [np.inf, 0]]), "entry (1, 0) is inf"),
        (np.zeros((4, 3)), "expected shape (any, 2)"),
        (np.zeros((1, 2)), "gave 1 actions and 2 are executed"),
    ],
)
def test_actions_that_no_robot_can_execute_are_never_sent(chunk, words):
    with pytest.raises(EpisodeDataError) as refused:
        PolicyServer(Spy(chunk))._infer(Session(0), message())
    assert words in str(refused.value)


def test_the_failure_head_is_sent_by_name_or_said_to_be_blind():
    reply = PolicyServer(Spy(failure=np.array([0.25, 40, 0.5], np.float32)))._infer(Session(0), message())
    assert reply["failure"] == {"p_fail": 0.25, "time_to_failure": 40.0, "replan": 0.5}
    reply = PolicyServer(Spy(failure=np.array([np.nan, 40, 0.5], np.float32)))._infer(Session(0), message())
    assert "failure" not in reply
    assert "p_fail" in reply["blind"]


def test_random_numbers_are_keyed_by_the_client_or_by_what_the_episode_starts_with():
    given = {"seed": 3, "task": "home", "episode": 9}
    policy, _ = served({"key": given}, {})
    assert policy.key == EpisodeKey(seed=3, task="home", episode=9)
    one, other = (PolicyServer(Spy()) for _ in range(2))
    other._infer(Session(0), message(prompt="somebody else"))
    for server, session in ((one, Session(0)), (other, Session(7))):
        server._infer(session, message())
    assert one.policy.key == other.policy.key, "other clients must not change what a client gets"
    assert served({"prompt": "stop"})[0].key != one.policy.key


def test_interleaved_sessions_equal_separate_ones_bit_for_bit():
    policy = make_policy("tabletop-weak")
    prompts = ("put the red cube in the left bin", "stack the blue cube on the green cube", "lift the yellow cylinder")
    rng = np.random.default_rng(0)

    def observation(prompt, state):
        pictures = {
            f"observation.images.{n}": rng.integers(0, 256, (h, w, 3), np.uint8)
            for n, h, w in policy.observation_spec.cameras
        }
        return {"prompt": prompt, "observation.state": state, **pictures}

    low, high = policy.state_range
    plans = [[observation(prompt, rng.uniform(low, high)) for _ in range(3)] for prompt in prompts]
    server = PolicyServer(policy)
    alone = []
    for plan in plans:
        session = Session(0)
        alone.append([server._infer(session, given)["actions"] for given in plan])
    sessions = [Session(i) for i in range(3)]
    for t in range(3):
        for i in range(3):
            actions = server._infer(sessions[i], plans[i][t])["actions"]
            np.testing.assert_array_equal(actions, alone[i][t])
    assert not np.array_equal(alone[0][0], alone[1][0])


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_episode_that_ends_has_its_row(tmp_path):
    path = tmp_path / "o.jsonl"
    served({}, {}, {"reset": True}, {"prompt": "left"}, {"step": 0}, outcomes=path)
    assert [(r["episode"], r["prompt"], r["steps"], r["outcome"]) for r in rows(path)] == [
        (0, "go", 4, "unknown"),
        (1, "go", 2, "unknown"),
        (2, "left", 2, "unknown"),
    ]


def write(path, run, outcomes, first=0, session=0):
    file = OutcomeFile(path)
    file.open()
    with open(path, "a") as out:
        for i, outcome in enumerate(outcomes, first):
            row = {"session": session, "episode": i, "prompt": "go", "steps": 5, "outcome": outcome}
            out.write(json.dumps({**row, **({"run": run} if run else {})}) + "\n")


def chains(path, length):
    return outcome_table(path, length)[1][-1][1:]


def test_chains_with_an_unknown_outcome_or_across_a_restart_are_left_out_whole(tmp_path):
    path = tmp_path / "o.jsonl"
    write(path, "first", ["success", "success", "unknown", "success", "failure", "success"])
    # of two chains the first holds an unknown outcome; the other is right once, then wrong
    assert chains(path, 3)[0].startswith("1.00")
    assert chains(path, 3)[1] == "1 (1 left out: not whole or an outcome unknown)"
    write(path, "second", ["success", "success"])
    write(path, "third", ["success"], first=2)
    assert chains(path, 3)[1].startswith("1 (3 left out"), "the parts of two runs must not make a chain"
    assert outcome_table(path, 0)[1][-1][2] == "8 (1 unknown)"


def test_files_of_an_older_server_cannot_hide_a_restart(tmp_path):
    path = tmp_path / "o.jsonl"
    write(path, "", ["success"])
    write(path, "", ["success", "success"])
    assert chains(path, 3) == ("no whole chain", "0 (1 left out: not whole or an outcome unknown)")
    write(path, "", ["success", "failure", "success"], session=1)
    assert chains(path, 3)[1].startswith("1 (1 left out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outcome": "succes"}, ":1 outcome is 'succes'"),
        ({"outcome": True}, ":1 outcome is True"),
        ({"session": "0"}, ":1 session: expected a number"),
        ({"episode": 0.5}, ":1 episode: expected a whole number"),
        ({"prompt": ["go"]}, ":1 prompt: expected text"),
        ({"steps": -1}, ":1 steps"),
        ({"prompt": None}, ":1 prompt: expected text"),
    ],
)
def test_damaged_outcome_files_are_refused_by_line(tmp_path, change, words):
    path = tmp_path / "o.jsonl"
    row = {"run": "a", "session": 0, "episode": 0, "prompt": "go", "steps": 5, "outcome": "success", **change}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(EpisodeDataError) as refused:
        outcome_table(path, 0)
    assert words in str(refused.value)


def test_outcome_files_that_lie_or_cannot_be_written(tmp_path):
    path = tmp_path / "o.jsonl"
    write(path, "run", ["success"])
    write(path, "run", ["failure"])
    with pytest.raises(EpisodeDataError, match="occurs twice"):
        outcome_table(path, 0)
    for text in ("[1]\n", "5\n", "{}\n", "{\n", "[" * 3000 + "\n"):
        path.write_text(text)
        with pytest.raises(EpisodeDataError, match=r"o\.jsonl:1: this is not an outcome file"):
            outcome_table(path, 0)
    path.write_text('{"session"')
    with pytest.raises(StorageError, match="middle of a line"):
        OutcomeFile(path).open()
    with pytest.raises(StorageError, match="cannot be written"):
        OutcomeFile(tmp_path).open()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(EpisodeDataError, match="not an outcome file"):
        outcome_table(path, 0)
    with pytest.raises(FailsightError, match="from 1"):
        outcome_table(path, -1)


def test_addresses_and_tokens():
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert is_loopback(host)
        require_token(host, "")
    for host in ("0.0.0.0", "::", "", "192.168.0.4", "robot.lab", "localhost.evil.org"):
        assert not is_loopback(host)
        with pytest.raises(FailsightError, match="--token"):
            require_token(host, "")
        require_token(host, "secret")
    for token in ("a b", "naïve", "a\nb"):
        with pytest.raises(FailsightError, match="printable ASCII"):
            require_token("127.0.0.1", token)
    for port in (-1, 65536, 99999):
        with pytest.raises(EpisodeDataError, match="--port"):
            read_port(port)


class Knock:
    def __init__(self, path="/", **headers):
        from websockets.datastructures import Headers

        self.path, self.headers = path, Headers(headers)


def test_the_door():
    assert admit(Knock(), "", False) is None
    assert admit(Knock(), "", True).status_code == 503
    assert admit(Knock("/healthz"), "secret", True).body == b"OK\n"
    for said in ("Bearer secret", "bearer secret", "Api-Key secret"):
        assert admit(Knock(Authorization=said), "secret", False) is None
    for said in ("Bearer secre", "Bearer secret2", "Basic secret", "secret", "", "Bearer sécret"):
        assert admit(Knock(Authorization=said), "secret", False).status_code == 401
    twice = Knock(Authorization="Bearer secret")
    twice.headers["Authorization"] = "Bearer other"
    assert admit(twice, "secret", False).status_code == 401


def test_servers_that_cannot_be_made():
    with pytest.raises(FailsightError, match="served already"):
        make_server("ws://127.0.0.1:1", {}, None, None)
    with pytest.raises(FailsightError, match="has agent, wrist, state"):
        make_server("tabletop-weak", {"agnt": "x"}, None, None)
    for pairs in (["agent="], ["=x"], ["agent"]):
        with pytest.raises(FailsightError, match="NAME=KEY"):
            key_table(pairs)
    with pytest.raises(FailsightError, match="twice"):
        key_table(["agent=a", "agent=b"])
