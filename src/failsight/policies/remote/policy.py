"""A policy behind a websocket as a `Policy`: for checkpoints whose code needs another environment than ours.

The specs come from our own server's metadata, or are given. A new episode is a new connection, as the protocol has no
other way to say so; the memory of the remote policy can therefore not be saved, and forks are refused. Servers that
name the fields of `failsight serve` are told step, instruction changes and random key, so that they act as the same
policy would in this process. Whatever a server says is read and checked: actions are (H, A), finite, and enough.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NoReturn

import numpy as np
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.foreign import one_line, read_array, read_count, read_number, read_text
from failsight.core.spec_reader import read_action_spec, read_observation_spec
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import FAILURE_HEAD, Array, EpisodeKey, Observation, PolicyOutput, Task
from failsight.core.wire import MESSAGE_LIMIT, pack, unpack

LIBERO_KEYS = ("observation/image", "observation/wrist_image")
_OPEN_S = 10.0
_GREET_S = 30.0
_CLOSE_S = 2.0
_SEND_S = 30
"""For the server to take a message, and how long it may take to open, greet and close."""


class RemotePolicy:
    """`RemotePolicy("ws://host:8000")`; raises FailsightError when nobody answers there."""

    def __init__(
        self,
        url: str,
        action_spec: ActionSpec | None = None,
        observation_spec: ObservationSpec | None = None,
        execute: int | None = None,
        keys: Mapping[str, str] | None = None,
        token: str = "",
        timeout_s: float = 60.0,
        first_timeout_s: float = 600.0,
    ) -> None:
        """Specs of a server that is not ours; `keys`: our camera name or `state` -> the server's name.

        `timeout_s`: how long an answer may take; `first_timeout_s`: the first one, in which servers compile.
        """
        self._url, self._keys, self._token = url, dict(keys or {}), token
        self._timeout_s, self._first_timeout_s = timeout_s, first_timeout_s
        self._line = ExitStack()
        self._connection: ClientConnection | None = None
        self._key: EpisodeKey | None = None
        self._prompt, self._told, self._answered = "", True, False
        self._metadata = self._connect()
        try:
            self._read_metadata(action_spec, observation_spec, execute)
        except EpisodeDataError as error:
            self._fail(str(error))

    def _read_metadata(
        self, action_spec: ActionSpec | None, observation_spec: ObservationSpec | None, execute: int | None
    ) -> None:
        """What is given counts; the rest has to be in the server's metadata."""
        metadata, url = self._metadata, self._url
        if "action_spec" not in metadata and (action_spec is None or observation_spec is None):
            self._fail(f"{url} does not say what its actions mean; give action_spec and observation_spec.")
        self.action_spec = action_spec or read_action_spec(metadata["action_spec"], f"{url} action_spec")
        self.observation_spec = observation_spec or read_observation_spec(
            metadata.get("observation_spec"), f"{url} observation_spec"
        )
        said = metadata.get("execute", 1) if execute is None else execute
        self.execute = read_count(said, f"{url} execute", 1, 10_000)
        self.fingerprint = one_line(read_text(metadata.get("policy", url), f"{url} policy", 1000))
        self._fields = _known_fields(metadata)
        known = [name for name, _, _ in self.observation_spec.cameras] + ["state"]
        if set(self._keys) - set(known):
            self._fail(f"keys names {sorted(set(self._keys) - set(known))}; {url} sees {', '.join(known)}.")

    def _connect(self) -> dict[str, Any]:
        """A new connection; returns what the server says first."""
        self.close()
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else None
        try:
            # no pong is waited for: a server may be busy in an inference for longer than any ping
            client = connect(
                self._url,
                compression=None,
                max_size=MESSAGE_LIMIT,
                max_queue=1,
                open_timeout=_OPEN_S,
                close_timeout=_CLOSE_S,
                ping_timeout=None,
                additional_headers=headers,
            )
            self._connection = self._line.enter_context(client)
            self._connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", _SEND_S, 0))
            first = self._connection.recv(timeout=_GREET_S)
        except (OSError, TimeoutError, WebSocketException, ValueError) as error:
            self.close()
            raise FailsightError(
                f"No policy server answers at {self._url} ({one_line(str(error))}); start one with: failsight serve "
                "CHECKPOINT. Where it asks for a token, set FAILSIGHT_TOKEN."
            ) from error
        if isinstance(first, str):
            self._fail(f"{self._url} refused: {_last_line(first)}")
        return self._unpack(first, "metadata")

    def reset(self, task: Task, key: EpisodeKey) -> None:
        """A new episode: a new connection. Raises FailsightError when another policy answers there by now."""
        self._prompt, self._key, self._told = task.instruction, key, False
        metadata = self._connect()
        for name in ("policy", "action_spec", "observation_spec", "execute"):
            if metadata.get(name) != self._metadata.get(name):
                self._fail(f"{self._url} serves another policy than before ({name} changed); connect anew to use it.")

    def reinstruct(self, instruction: str) -> None:
        """The next message carries this instruction, in the same episode where the server can tell."""
        self._prompt = instruction

    def infer(self, observation: Observation, step: int) -> PolicyOutput:
        """One inference. Raises FailsightError with the server's own words when it refuses."""
        began = time.perf_counter()
        reply = self._ask(pack(self._message(observation, step)))
        if isinstance(reply, str):
            self._fail(f"{self._url} refused: {_last_line(reply)}")
        result = self._unpack(reply, "answer")
        try:
            chunk, failure = self._chunk(result), self._failure(result)
        except EpisodeDataError as error:
            self._fail(str(error))
        return PolicyOutput(chunk=chunk, failure=failure, latency_ms=(time.perf_counter() - began) * 1e3)

    def _message(self, observation: Observation, step: int) -> dict[str, Any]:
        message: dict[str, Any] = {"prompt": self._prompt}
        for i, (name, _, _) in enumerate(self.observation_spec.cameras):
            default = LIBERO_KEYS[i] if i < len(LIBERO_KEYS) else f"observation/{name}"
            message[self._keys.get(name, default)] = observation[f"observation.images.{name}"]
        if self.observation_spec.state:
            message[self._keys.get("state", "observation/state")] = observation["observation.state"]
        ours: dict[str, Any] = {"step": step, "reset": not self._told}
        if self._key is not None and not self._told:
            ours["key"] = {"seed": self._key.seed, "task": self._key.task, "episode": self._key.episode}
        return message | {name: value for name, value in ours.items() if name in self._fields}

    def _ask(self, data: bytes) -> bytes | str:
        if self._connection is None:
            raise FailsightError(f"There is no connection to {self._url}; call reset(task, key) first.")
        patience = self._timeout_s if self._answered else self._first_timeout_s
        self._require_silence(self._connection)
        try:
            self._connection.send(data)
            reply = self._connection.recv(timeout=patience)
        except TimeoutError:
            self._fail(f"{self._url} gave no answer within {patience:g} s; give RemotePolicy a longer timeout_s.")
        except (ConnectionClosed, OSError) as error:
            self._fail(f"{self._url} closed the connection ({one_line(str(error))}); reset begins a new one.")
        self._told = self._answered = True
        return reply

    def _require_silence(self, connection: ClientConnection) -> None:
        """An answer that nobody asked for would be taken for the next one, one observation late."""
        try:
            connection.recv(timeout=0)
        except TimeoutError:
            return
        except ConnectionClosed as error:
            self._fail(f"{self._url} closed the connection ({one_line(str(error))}); reset begins a new one.")
        self._fail(f"{self._url} spoke without being asked; its answers cannot be told apart.")

    def _unpack(self, data: bytes, what: str) -> dict[str, Any]:
        try:
            found = unpack(data)
        except EpisodeDataError as error:
            self._fail(f"{self._url} sent {what} that cannot be read: {error}")
        if not isinstance(found, dict):
            self._fail(f"{self._url} sent {what} that is no map but {type(found).__name__}.")
        return found

    def _chunk(self, result: Mapping[str, Any]) -> Array:
        """(H, A) float32; a single action is not taken for a chunk, as nobody says which it is when H = A."""
        chunk = read_array(result.get("actions"), f"{self._url} actions", (None, len(self.action_spec.dimensions)))
        if len(chunk) < self.execute:
            raise EpisodeDataError(
                f"{self._url} actions: {len(chunk)} came and {self.execute} are executed per inference; give "
                f"RemotePolicy execute={len(chunk)}."
            )
        return chunk

    def _failure(self, result: Mapping[str, Any]) -> Array | None:
        """(3,) by name; only our own server's field of this name means this."""
        said = result.get("failure") if "step" in self._fields else None
        if said is None:
            return None
        if not isinstance(said, Mapping) or set(said) != set(FAILURE_HEAD):
            raise EpisodeDataError(f"{self._url} failure: expected a map of {', '.join(FAILURE_HEAD)}.")
        limits = {"p_fail": 1.0, "time_to_failure": float("inf"), "replan": 1.0}
        values = [read_number(said[name], f"{self._url} failure.{name}", 0, limits[name]) for name in FAILURE_HEAD]
        return np.array(values, np.float32)

    def _fail(self, sentence: str) -> NoReturn:
        """Hang up, because after a broken answer nobody knows whose turn it is, and say why."""
        self.close()
        raise FailsightError(sentence)

    def save_state(self) -> bytes:
        """Refused: the memory is on the other side."""
        raise FailsightError("The memory of a remote policy cannot be saved; forks need a policy in this process.")

    def load_state(self, state: bytes) -> None:
        """Refused, as above."""
        raise FailsightError("The memory of a remote policy cannot be restored; forks need a policy in this process.")

    def close(self) -> None:
        """Hang up; again is fine."""
        self._connection = None
        self._line.close()


def _known_fields(metadata: Mapping[str, Any]) -> frozenset[str]:
    """The message fields beyond openpi's protocol that a server names."""
    fields = metadata.get("fields")
    return frozenset(name for name in fields if isinstance(name, str)) if isinstance(fields, list) else frozenset()


def _last_line(text: str) -> str:
    """The error itself: openpi's server sends a whole traceback."""
    lines = [line for line in text.splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else "(no words)"
