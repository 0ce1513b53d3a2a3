"""A Redis that tracks, and the network before it, in virtual time: what it has sent arrives when a test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis

from streamml.clock import ManualClock
from streamml.errors import FeatureStoreDown

TIMEOUT_S = 1.0


class SimulatedRedis:
    """Keys, what each had when, and the connections. It does of Redis what `streamml.adapters.redis.tracking` rests on.

    Args:
        way_s: how long a command is under way, and as long its reply.
        within: stands in the midst of the next reply to ``MGET``, once.
        meanwhile: called once, when a command has been carried out and its reply is under way.
    """

    def __init__(self, clock: ManualClock, way_s: float = 0.0) -> None:
        self.clock = clock
        self.values: dict[bytes, bytes] = {}
        self.history: dict[bytes, list[tuple[float, bytes | None]]] = {}
        self.links: list[SimulatedSession] = []
        self.reachable = True
        self.way_s = way_s
        self.meanwhile: Callable[[], None] | None = None
        self.mode = b"standalone"
        self.trips = 0
        self.within: list[Any] | None = None

    def connect(self) -> SimulatedSession:
        self.links.append(SimulatedSession(self))
        return self.links[-1]

    def put(self, key: bytes, value: bytes | None) -> None:
        """Write, or delete where ``value`` is ``None``."""
        self.values.pop(key, None)
        if value is not None:
            self.values[key] = value
        self.history.setdefault(key, [(float("-inf"), None)]).append((self.clock.now(), value))
        for link in self.links:
            link.changed(key)

    def flush(self) -> None:
        for key in list(self.values):
            self.values.pop(key)
            self.history[key].append((self.clock.now(), None))
        for link in self.links:
            link.flushed()

    def had(self, key: bytes, since: float) -> set[bytes | None]:
        """Everything that a key held from then on, what was replaced at that moment too."""
        held = self.history.get(key, [(float("-inf"), None)])
        return {[value for at, value in held if at < since][-1], *(value for at, value in held if at >= since)}


class SimulatedSession:
    """One connection, as `TrackedSession` is one.

    Args:
        silent: nothing passes any more, in either direction, and nobody says so.
        arrived: of what the server has sent, how much has come; the rest is under way.
    """

    def __init__(self, server: SimulatedRedis) -> None:
        self.told: list[Any] = []
        self.silent = False
        self.open = True
        self._server = server
        self._watched: set[bytes] = set()
        self._tracking = self._opted_in = False
        self._sent: deque[tuple[str, Any]] = deque()
        self._arrived = 0

    def call(self, *command: bytes | str | int) -> Any:
        self.send(hiredis.pack_command(command))  # type: ignore[arg-type]
        return self.read()

    def send(self, packed: bytes) -> None:
        self._alive()
        reader = hiredis.Reader()
        reader.feed(packed)
        self._server.trips += 1
        self._server.clock.advance(self._server.way_s)
        while (command := reader.gets()) is not False:
            self._sent.append(("reply", self._carried_out(*command)))
            happens, self._server.meanwhile = self._server.meanwhile, None
            if happens is not None:
                happens()
        self._server.clock.advance(self._server.way_s)

    def read(self) -> Any:
        self._alive()
        while True:
            kind, what = self._sent.popleft()
            self._arrived = max(0, self._arrived - 1)
            if kind == "reply":
                return what
            self.told.append([b"invalidate", what])

    def listen(self) -> None:
        while self._arrived:
            self._arrived -= 1
            self.told.append([b"invalidate", self._sent.popleft()[1]])
        if not self.open and not self.silent:
            raise FeatureStoreDown("The connection is closed.")

    def close(self) -> None:
        self.open = False
        if self in self._server.links:
            self._server.links.remove(self)

    def arrive(self, count: int) -> None:
        """So much of what is under way comes."""
        if not self.silent:
            self._arrived = min(len(self._sent), self._arrived + count)

    def changed(self, key: bytes) -> None:
        if key in self._watched:
            self._watched.remove(key)
            self._sent.append(("push", [key]))

    def flushed(self) -> None:
        if self._tracking:
            self._watched.clear()
            self._sent.append(("push", None))

    def _alive(self) -> None:
        if self.silent or not self._server.reachable:
            self._server.clock.advance(TIMEOUT_S)
            raise FeatureStoreDown("No answer.")
        if not self.open:
            raise FeatureStoreDown("The connection is closed.")

    def _carried_out(self, name: bytes, *arguments: bytes) -> Any:
        opted_in, self._opted_in = self._opted_in, False
        match name, *arguments:
            case (b"HELLO", b"3"):
                return {b"proto": 3, b"mode": self._server.mode}
            case (b"CLIENT", b"TRACKING", b"ON", b"OPTIN"):
                self._tracking = True
                return b"OK"
            case (b"CLIENT", b"CACHING", b"YES"):
                self._opted_in = True
                return b"OK"
            case (b"MGET", *keys):
                if opted_in and self._tracking:
                    self._watched.update(keys)
                values: list[Any] = [self._server.values.get(key) for key in keys]
                if self._server.within is not None:
                    values[1:] = [self._server.within, *values[1:-1]]
                    self._server.within = None
                return values
            case (b"PING",):
                return b"PONG"
            case _:
                raise AssertionError(f"{name!r} is not expected here.")
