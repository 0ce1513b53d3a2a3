"""Passes on what comes between a client and a server, or holds it without a word, as a firewall does that has forgotten them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 1 << 16


class Relay:
    """A port on loopback before ``to_port``."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._flowing = threading.Event()
        self._flowing.set()
        self._ends: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def hold(self) -> None:
        """From now on nothing comes through, in either direction, and no connection is closed."""
        self._flowing.clear()

    def release(self) -> None:
        """Pass on what was held, and what comes."""
        self._flowing.set()

    def close(self) -> None:
        for one in (self._listening, *self._ends):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._flowing.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listening.accept()
                there = socket.create_connection(("127.0.0.1", self._to_port))
                self._ends += (here, there)
                for ends in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=ends, name="relay-pump", daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(_CHUNK):
                self._flowing.wait()
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


@contextmanager
def relay(to_port: int) -> Iterator[Relay]:
    """A relay that ends with the block."""
    made = Relay(to_port)
    try:
        yield made
    finally:
        made.close()
