"""A policy server in openpi's websocket protocol: any benchmark or robot that speaks it can drive our policies.

Strict lock-step per connection: the server sends its metadata, then one reply per observation. A new episode is a new
connection, or `"reset": True` in an observation. Inference runs in a worker thread, so a slow policy drops nobody;
every connection has its own policy memory. Beyond the protocol: `{"outcome": "success" | "failure"}` closes an episode,
or a person is asked; outcomes go to a JSON lines file. This server has no authentication; keep it on a private network.
"""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from failsight.core.contracts import Policy
from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.types import EpisodeKey, Task
from failsight.core.wire import pack, unpack

PORT = 8000
_CAMERAS = ("observation/image", "observation/wrist_image")
OUTCOMES = ("success", "failure")


@dataclass(slots=True)
class _Session:
    """One connection."""

    number: int
    episode: int = -1
    step: int = 0
    prompt: str = ""
    open: bool = False
    memory: bytes = b""
    previous_ms: float = 0.0


@dataclass(slots=True)
class PolicyServer:
    """Serves one policy to any number of connections."""

    policy: Policy
    keys: Mapping[str, str] = field(default_factory=dict)
    """Our observation name -> theirs, where the LIBERO names do not fit."""
    outcomes: Path | None = None
    """JSON lines file of finished episodes."""
    ask: Callable[[str], str] | None = None
    """Asks a person how an episode ended; called in a worker thread."""
    sessions: int = 0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, host: str, port: int, ready: Callable[[int], None] = lambda port: None) -> None:
        """Serve until cancelled; `ready` is told the port (0 picks one)."""
        async with serve(self._talk, host, port, compression=None, max_size=None, process_request=_health) as server:
            ready(int(next(iter(server.sockets)).getsockname()[1]))
            await asyncio.get_running_loop().create_future()

    @property
    def metadata(self) -> dict[str, Any]:
        """What a client learns first: both specs, and how many actions to execute."""
        return {
            "policy": self.policy.fingerprint,
            "action_spec": self.policy.action_spec.as_dict(),
            "observation_spec": self.policy.observation_spec.as_dict(),
            "execute": self.policy.execute,
        }

    async def _talk(self, connection: ServerConnection) -> None:
        session = _Session(self.sessions)
        self.sessions += 1
        try:
            await connection.send(pack(self.metadata))
            async for message in connection:
                if isinstance(message, str):
                    raise EpisodeDataError("Observations are binary msgpack, not text.")
                await connection.send(pack(await self._answer(session, unpack(message))))
        except ConnectionClosed:
            pass
        except FailsightError as error:
            await connection.send(f"failsight: {error}")
            await connection.close(1011)
        except Exception:
            await connection.send(traceback.format_exc())
            await connection.close(1011)
        finally:
            await self._finish(session, None)

    async def _answer(self, session: _Session, message: Any) -> dict[str, Any]:
        if not isinstance(message, dict):
            raise EpisodeDataError("An observation is a map.")
        if "outcome" in message:
            await self._finish(session, str(message["outcome"]))
            return {"episode": session.episode}
        began = time.perf_counter()
        async with self._lock:
            result = await asyncio.to_thread(self._infer, session, message)
        timing = {"infer_ms": (time.perf_counter() - began) * 1e3}
        if session.previous_ms:
            timing["prev_total_ms"] = session.previous_ms
        session.previous_ms = timing["infer_ms"]
        return {**result, "server_timing": timing}

    def _infer(self, session: _Session, message: Mapping[str, Any]) -> dict[str, Any]:
        prompt = str(message.get("prompt", session.prompt))
        if not prompt:
            raise EpisodeDataError("The first observation of an episode needs a 'prompt'.")
        observation = self._observation(message)
        if not session.open or message.get("reset"):
            session.episode, session.step, session.open = session.episode + 1, 0, True
            task = Task(id="remote", suite="remote", instruction=prompt, horizon=10**9)
            self.policy.reset(task, EpisodeKey(seed=session.number, task="remote", episode=session.episode))
        else:
            self.policy.load_state(session.memory)
            reinstruct = getattr(self.policy, "reinstruct", None)
            if prompt != session.prompt and reinstruct is not None:
                reinstruct(prompt)
        session.prompt = prompt
        output = self.policy.infer(observation, session.step)
        session.step += self.policy.execute
        session.memory = self.policy.save_state()
        result: dict[str, Any] = {"actions": output.chunk, "policy_timing": {"infer_ms": output.latency_ms}}
        if output.failure is not None:
            p_fail, left, replan = (float(v) for v in output.failure)
            result["failure"] = {"p_fail": p_fail, "time_to_failure": left, "replan": replan}
        return result

    def _observation(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Their names -> ours. Raises EpisodeDataError naming what is missing or of another shape."""
        spec = self.policy.observation_spec
        wanted: dict[str, tuple[str, tuple[int, ...]]] = {}
        for i, (name, height, width) in enumerate(spec.cameras):
            theirs = self.keys.get(name, _CAMERAS[i] if i < len(_CAMERAS) else f"observation/{name}")
            wanted[f"observation.images.{name}"] = (theirs, (height, width, 3))
        if spec.state:
            wanted["observation.state"] = (self.keys.get("state", "observation/state"), (len(spec.state),))
        found = {"observation.state": np.zeros(0, np.float32)}
        for ours, (theirs, shape) in wanted.items():
            value = message.get(ours, message.get(theirs))
            if value is None:
                raise EpisodeDataError(
                    f"The observation has no {theirs!r} (nor {ours!r}); it has {sorted(map(str, message))}."
                )
            if np.shape(value) != shape:
                raise EpisodeDataError(f"{theirs} has shape {np.shape(value)}; this policy was trained with {shape}.")
            found[ours] = np.array(value, np.uint8 if "images" in ours else np.float32)
        return found

    async def _finish(self, session: _Session, outcome: str | None) -> None:
        """Close the running episode and write how it ended; ask a person where the client does not say."""
        if not session.open:
            return
        session.open = False
        if outcome is None and self.ask is not None:
            outcome = await asyncio.to_thread(self.ask, f"episode {session.episode}: {session.prompt}")
        if outcome not in OUTCOMES:
            outcome = "unknown"
        if self.outcomes is not None:
            row = {"session": session.number, "episode": session.episode, "prompt": session.prompt}
            with open(self.outcomes, "a") as file:
                file.write(json.dumps({**row, "steps": session.step, "outcome": outcome}) + "\n")


def _health(connection: ServerConnection, request: Request) -> Response | None:
    if request.path != "/healthz":
        return None
    return Response(HTTPStatus.OK, "OK", Headers({"Content-Type": "text/plain"}), b"OK\n")
