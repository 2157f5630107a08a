"""A policy behind a websocket as a `Policy`: for checkpoints whose code needs another environment than ours.

The specs come from our own server's metadata, or are given. A new episode is a new connection, as the protocol has no
other way to say so; the memory of the remote policy can therefore not be saved, and forks are refused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from failsight.core.errors import FailsightError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import EpisodeKey, Observation, PolicyOutput, Task
from failsight.core.wire import pack, unpack

LIBERO_KEYS = ("observation/image", "observation/wrist_image")


class RemotePolicy:
    """`RemotePolicy("ws://host:8000")`; raises FailsightError when nobody answers there."""

    def __init__(
        self,
        url: str,
        action_spec: ActionSpec | None = None,
        observation_spec: ObservationSpec | None = None,
        execute: int | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        """Specs of a server that is not ours; `keys`: our camera name or `state` -> the server's name."""
        self._url, self._keys = url, dict(keys or {})
        self._line = ExitStack()
        self._connection: ClientConnection | None = None
        metadata = self._connect()
        known = isinstance(metadata, dict) and "action_spec" in metadata
        if not known and (action_spec is None or observation_spec is None):
            raise FailsightError(f"{url} does not say what its actions mean; give action_spec and observation_spec.")
        self.action_spec = action_spec or ActionSpec.from_dict(metadata["action_spec"])
        self.observation_spec = observation_spec or ObservationSpec.from_dict(metadata["observation_spec"])
        self.execute = execute or int(metadata.get("execute", 1))
        self.fingerprint = str(metadata.get("policy", url))
        self._prompt = ""

    def _connect(self) -> Any:
        self.close()
        try:
            client = connect(self._url, compression=None, max_size=None, open_timeout=10)
            self._connection = self._line.enter_context(client)
            first = self._connection.recv(timeout=30)
        except (OSError, TimeoutError, ConnectionClosed) as error:
            raise FailsightError(
                f"No policy server answers at {self._url} ({error}); start one with: failsight serve CHECKPOINT"
            ) from error
        return unpack(first) if isinstance(first, bytes) else {}

    def reset(self, task: Task, key: EpisodeKey) -> None:
        """A new episode: a new connection."""
        self._prompt = task.instruction
        self._connect()

    def reinstruct(self, instruction: str) -> None:
        """The next message carries this instruction."""
        self._prompt = instruction

    def infer(self, observation: Observation, step: int) -> PolicyOutput:
        """One inference. Raises FailsightError with the server's own words when it refuses."""
        assert self._connection is not None
        began = time.perf_counter()
        message: dict[str, Any] = {"prompt": self._prompt}
        for i, (name, _, _) in enumerate(self.observation_spec.cameras):
            default = LIBERO_KEYS[i] if i < len(LIBERO_KEYS) else f"observation/{name}"
            message[self._keys.get(name, default)] = observation[f"observation.images.{name}"]
        if self.observation_spec.state:
            message[self._keys.get("state", "observation/state")] = observation["observation.state"]
        try:
            self._connection.send(pack(message))
            reply = self._connection.recv()
        except ConnectionClosed as error:
            raise FailsightError(f"{self._url} closed the connection ({error}).") from error
        if isinstance(reply, str):
            raise FailsightError(f"{self._url} refused: {reply.strip().splitlines()[-1]}")
        result = unpack(reply)
        chunk = np.array(result["actions"], np.float32)
        failure = result.get("failure")
        return PolicyOutput(
            chunk=chunk if chunk.ndim == 2 else chunk[None],
            failure=None if failure is None else np.array(list(failure.values()), np.float32),
            latency_ms=(time.perf_counter() - began) * 1e3,
        )

    def save_state(self) -> bytes:
        """Refused: the memory is on the other side."""
        raise FailsightError("The memory of a remote policy cannot be saved; forks need a policy in this process.")

    def load_state(self, state: bytes) -> None:
        """Refused, as above."""
        raise FailsightError("The memory of a remote policy cannot be restored; forks need a policy in this process.")

    def close(self) -> None:
        """Hang up."""
        self._line.close()
        self._connection = None
