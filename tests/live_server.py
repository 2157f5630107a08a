"""Servers on this machine for tests: ours around a policy, and one that says whatever it is told to."""

import asyncio
import contextlib
import threading

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from failsight.serving.server import PolicyServer


class InThread:
    """An event loop in a thread; `work(ready)` serves until it is cancelled and calls `ready(port)`."""

    def __init__(self, work):
        started, self.error = threading.Event(), None
        self._loop = asyncio.new_event_loop()

        def ready(port):
            self.port, self.url = port, f"ws://127.0.0.1:{port}"
            started.set()

        async def main():
            self._task = asyncio.current_task()
            await work(ready)

        def body():
            asyncio.set_event_loop(self._loop)
            try:
                with contextlib.suppress(asyncio.CancelledError):
                    self._loop.run_until_complete(main())
            except Exception as error:  # a server that cannot start: the test looks at it
                self.error = error
            finally:
                started.set()

        self._thread = threading.Thread(target=body, daemon=True)
        self._thread.start()
        assert started.wait(10)

    def stop(self):
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(20)


class Running(InThread):
    """Our server."""

    def __init__(self, policy, host="127.0.0.1", **options):
        self.policy = policy

        async def work(ready):
            self.server = PolicyServer(policy, **options)
            await self.server.run(host, 0, ready)

        super().__init__(work)


class Saying(InThread):
    """A server that says `script(number)` on its connection of that number: metadata, then one answer per message.

    An entry may be bytes, text, None (says nothing) or a function of the connection.
    """

    def __init__(self, script):
        count = iter(range(10**9))

        async def talk(connection):
            first, *answers = script(next(count))
            with contextlib.suppress(ConnectionClosed):
                await say(connection, first)
                for answer in answers:
                    await connection.recv()
                    await say(connection, answer)
                await connection.wait_closed()

        async def say(connection, what):
            if callable(what):
                await what(connection)
            elif what is not None:
                await connection.send(what)

        async def work(ready):
            async with serve(talk, "127.0.0.1", 0, compression=None, max_size=None, close_timeout=0.5) as server:
                ready(server.sockets[0].getsockname()[1])
                await asyncio.get_running_loop().create_future()

        super().__init__(work)
