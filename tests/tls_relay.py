"""TLS in front of a server that has none: the Redis that comes with the tests is built without it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.certificates import Certificate

_CHUNK = 1 << 16


@contextmanager
def tls_relay(to_port: int, certificate: Certificate) -> Iterator[int]:
    """A port on loopback that speaks TLS and passes everything on to ``to_port``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.both)
    loop = asyncio.new_event_loop()
    relay = _Relay(to_port)
    server = loop.run_until_complete(asyncio.start_server(relay.serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, name="tls-relay", daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(relay.end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Relay:
    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        onward, back = await asyncio.open_connection("127.0.0.1", self._to_port)
        with suppress(OSError, asyncio.CancelledError):
            pumps = [asyncio.ensure_future(_pump(reader, back)), asyncio.ensure_future(_pump(onward, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        for one in (writer, back):
            one.close()
            with suppress(OSError, asyncio.CancelledError):
                await one.wait_closed()
        self._tasks.discard(task)

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
