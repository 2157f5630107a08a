"""A policy server in openpi's websocket protocol: any benchmark or robot that speaks it can drive our policies.

Strict lock-step per connection: the server sends its metadata, then one reply per observation. Inference runs in a
worker thread, so a slow policy drops nobody; every connection has its own policy memory. What clients say beyond the
protocol is in `client_message`; how episodes ended goes to a JSON lines file, told by the client or by a person.
A message that means nothing is answered with one sentence, as text, and closes its connection; others are served on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as Knock
from websockets.http11 import Response

from failsight.core.contracts import Policy
from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.foreign import one_line, read_array, read_number
from failsight.core.types import FAILURE_HEAD, Array, PolicyOutput, Task
from failsight.core.wire import MESSAGE_LIMIT, pack, unpack
from failsight.serving.client_message import FIELDS, OUTCOMES, Reader, Request, read_executed, read_outcome
from failsight.serving.client_message import Session as _Session
from failsight.serving.door import QuietLog, admit, is_loopback, read_port, require_token
from failsight.serving.outcome_file import EpisodeEnd, OutcomeFile

CONNECTIONS = 32
"""Open at once; with the limit of a message this bounds the memory that clients can take."""
_HORIZON = 10**9
_SEND_S = 30.0
"""For a client to take an answer."""
_log = logging.getLogger("failsight.serve")


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
    token: str = ""
    """What clients send as `Authorization: Bearer`; needed where other machines can reach the server."""
    idle_s: float = 600.0
    """A client that says nothing for so long is hung up on."""
    sessions: int = 0
    _live: int = field(init=False, default=0)
    _lock: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _question: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _reader: Reader = field(init=False)
    _ends: OutcomeFile = field(init=False)

    def __post_init__(self) -> None:
        self._reader, self._ends = Reader(self.policy, self.keys), OutcomeFile(self.outcomes)

    async def run(self, host: str, port: int, ready: Callable[[int], None] = lambda port: None) -> None:
        """Serve until cancelled; `ready` is told the port (0 picks one).

        Raises FailsightError when the address cannot be used, needs a token, or outcomes cannot be written.
        """
        require_token(host, self.token)
        self._ends.open()
        try:
            server = await serve(
                self._talk,
                host,
                read_port(port),
                compression=None,
                max_size=MESSAGE_LIMIT,
                max_queue=1,
                ping_timeout=None,  # nobody is hung up on during a long inference; `idle_s` finds the mute
                origins=[None],  # no web page may talk to it behind a person's back
                process_request=self._admit,
                logger=QuietLog(logging.getLogger("failsight.serve.websocket"), {}),
            )
        except (OSError, UnicodeError) as error:
            raise FailsightError(
                f"Cannot listen on {host}:{port} ({error}); choose another --host or --port."
            ) from error
        if not is_loopback(host):
            _log.warning("Other machines can reach %s: token and pictures travel unencrypted.", host or "this server")
        async with server:
            ready(int(next(iter(server.sockets)).getsockname()[1]))
            await asyncio.get_running_loop().create_future()

    def _admit(self, connection: ServerConnection, knock: Knock) -> Response | None:
        return admit(knock, self.token, self._live >= CONNECTIONS)

    @property
    def metadata(self) -> dict[str, Any]:
        """What a client learns first: both specs, how many actions to execute, and how its messages are read."""
        return {
            "policy": self.policy.fingerprint,
            "action_spec": self.policy.action_spec.as_dict(),
            "observation_spec": self.policy.observation_spec.as_dict(),
            "execute": self.policy.execute,
            "fields": list(FIELDS),
            "assumptions": self._reader.assumptions,
        }

    async def _talk(self, connection: ServerConnection) -> None:
        session = _Session(self.sessions)
        self.sessions, self._live = self.sessions + 1, self._live + 1
        try:
            await self._serve(connection, session)
        except ConnectionClosed:
            pass
        except FailsightError as error:
            await _refuse(connection, session, str(error))
        except Exception as error:  # our own bug or the policy's: the traceback is for the log, never for a client
            _log.error("session %d ended", session.number, exc_info=error)
            await _refuse(connection, session, f"the server failed ({type(error).__name__}); its log says how.")
        finally:
            self._live -= 1
            await self._end(session)

    async def _serve(self, connection: ServerConnection, session: _Session) -> None:
        await _send(connection, pack(self.metadata))
        while True:
            try:
                async with asyncio.timeout(self.idle_s):
                    message = await connection.recv()
            except TimeoutError as error:
                raise EpisodeDataError(f"No message came for {self.idle_s:g} s; connect again.") from error
            if isinstance(message, str):
                raise EpisodeDataError("Observations are binary msgpack, not text.")
            await _send(connection, pack(await self._answer(session, unpack(message))))

    async def _end(self, session: _Session) -> None:
        try:
            await self._finish(session, None)
        except FailsightError as error:
            _log.error("session %d: %s", session.number, one_line(str(error)))

    async def _answer(self, session: _Session, message: Any) -> dict[str, Any]:
        if not isinstance(message, dict):
            raise EpisodeDataError("An observation is a map.")
        if "outcome" in message:
            if not session.open:
                raise EpisodeDataError("outcome: no episode is running on this connection.")
            await self._finish(session, read_outcome(message["outcome"]), message)
            if not set(message) - {"outcome", "executed"}:
                return {"episode": session.episode}
        began = perf_counter()
        request = await asyncio.to_thread(self._reader.read, session, message)
        if request.begins:
            await self._finish(session, None, message)
        async with self._lock:
            result = await asyncio.to_thread(self._act, session, request)
        timing = {"infer_ms": (perf_counter() - began) * 1e3}
        if session.previous_ms:
            timing["prev_total_ms"] = session.previous_ms
        session.previous_ms = timing["infer_ms"]
        return {**result, "server_timing": timing}

    def _infer(self, session: _Session, message: Mapping[str, Any]) -> dict[str, Any]:
        """One observation of a session, without the connection around it."""
        request = self._reader.read(session, message)
        if request.begins and session.open:
            self._record(session, "unknown", session.last + read_executed(session, message), "executed" in message)
        return self._act(session, request)

    def _observation(self, message: Mapping[str, Any]) -> dict[str, Array]:
        return self._reader.observation(message)

    def _act(self, session: _Session, request: Request) -> dict[str, Any]:
        if request.begins:
            session.episode, session.open, session.told = session.episode + 1, True, True
            task = Task(id="remote", suite="remote", instruction=request.prompt, horizon=_HORIZON)
            self.policy.reset(task, request.key)
        else:
            self.policy.load_state(session.memory)
            if request.prompt != session.prompt:
                self.policy.reinstruct(request.prompt)
        session.prompt, session.last, session.told = request.prompt, request.step, session.told and request.told
        output = self.policy.infer(request.observation, request.step)
        session.step, session.memory = request.step + self.policy.execute, self.policy.save_state()
        return _reply(output, self.policy)

    async def _finish(self, session: _Session, outcome: str | None, message: Mapping[str, Any] | None = None) -> None:
        """Close the running episode and write how it ended; ask a person where the client does not say."""
        if not session.open:
            return
        steps = session.last + read_executed(session, message or {})
        session.open = False
        if outcome is None and self.ask is not None:
            async with self._question:
                said = await asyncio.to_thread(self.ask, f"episode {session.episode}: {one_line(session.prompt)}")
            outcome = said if said in OUTCOMES else None
        self._record(session, outcome or "unknown", steps, session.told and "executed" in (message or {}))

    def _record(self, session: _Session, outcome: str, steps: int, told: bool) -> None:
        session.open = False
        end = EpisodeEnd(
            run=self._ends.run,
            session=session.number,
            episode=session.episode,
            prompt=session.prompt,
            steps=steps,
            steps_from="client" if told else "assumed",
            outcome=outcome,
        )
        self._ends.write(end)


def _reply(output: PolicyOutput, policy: Policy) -> dict[str, Any]:
    """Raises EpisodeDataError rather than send actions that are not finite or too few."""
    try:
        chunk = read_array(output.chunk, "chunk", (None, len(policy.action_spec.dimensions)))
    except EpisodeDataError as error:
        raise EpisodeDataError(f"The policy gave no actions to send: {error}") from error
    if len(chunk) < policy.execute:
        raise EpisodeDataError(f"The policy gave {len(chunk)} actions and {policy.execute} are executed at a time.")
    result: dict[str, Any] = {"actions": chunk, "policy_timing": {"infer_ms": output.latency_ms}}
    if output.failure is not None:
        try:
            values = [read_number(value, name) for name, value in zip(FAILURE_HEAD, output.failure, strict=True)]
            result["failure"] = dict(zip(FAILURE_HEAD, values, strict=True))
        except (EpisodeDataError, ValueError) as error:
            result["blind"] = f"The failure head cannot be read: {error}"
    return result


async def _send(connection: ServerConnection, data: bytes | str) -> None:
    try:
        async with asyncio.timeout(_SEND_S):
            await connection.send(data)
    except TimeoutError as error:
        connection.transport.abort()
        raise EpisodeDataError(f"The client took no answer for {_SEND_S:g} s.") from error


async def _refuse(connection: ServerConnection, session: _Session, sentence: str) -> None:
    """One sentence as text, as openpi's clients expect an error, and the connection is closed."""
    line = one_line(sentence)
    _log.warning("session %d refused: %s", session.number, line)
    try:
        await _send(connection, f"failsight: {line}")
        await connection.close(1011)
    except (ConnectionClosed, FailsightError):
        return
