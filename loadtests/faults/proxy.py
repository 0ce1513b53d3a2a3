"""Between the workers and Redis: passes everything on, and on request late, or only the first half of a reply."""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import suppress
from typing import Final

from streamml.ops.embedded.process import free_port

_LINGER_S: Final = 1.0


class Proxy:
    """A thread that listens on a port of its own.

    Attributes:
        delay_s: how long every part of a reply is held back.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        """
        Args:
            target: port on loopback.
            tls: what clients have to speak TLS with; what is passed on is in plain.
        """
        self.port = free_port()
        self.delay_s = 0.0
        self._target = target
        self._tls = tls
        self._cuts = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._thread.start()
        listening = asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self._tls)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """End the next reply in its middle, and its connection with it."""
        self._cuts += 1

    async def _close(self) -> None:
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # Redis is down, somebody was killed, or the run is over.
        finally:
            await _ended(writer)
            self._connections.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        ways = [asyncio.create_task(self._requests(reader, forth)), asyncio.create_task(self._replies(back, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await _ended(forth)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self._cuts:
                self._cuts -= 1
                writer.write(data[: len(data) // 2])
                with suppress(OSError):
                    await writer.drain()
                return
            writer.write(data)
            await writer.drain()


async def _ended(writer: asyncio.StreamWriter) -> None:
    """Close a connection; what its other end does not take soon is dropped."""
    writer.close()
    try:
        with suppress(OSError):
            await asyncio.wait_for(writer.wait_closed(), _LINGER_S)
    except TimeoutError:
        writer.transport.abort()
        await asyncio.sleep(0)
