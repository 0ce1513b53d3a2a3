"""A connection on which Redis tells of every change to what was read through it (``CLIENT TRACKING``, RESP3).

Values and news come on one connection, so their order is the server's: what is told behind a value is newer than it. With a
connection for each, an old value could come behind the news that it is old. The mode is the one in which the server remembers
what was read (``OPTIN``, for reads that are to be tracked) and not the one by prefixes: of a key it tells once, and not again
before it is read again, so that no busy writer makes the server keep more than what is cached for a reader that sleeps.

An answer is the proof that the connection lives: with it has come all that changed before its command was sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final, Protocol

from hiredis import PushNotification
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.exceptions import RedisError

from streamml.adapters.redis.connection import Reply, Server, Session, pack
from streamml.clock import Clock
from streamml.errors import ConfigError, FeatureStoreDown

_VALUES: Final = {bytes, type(None)}
_NO_CLUSTER: Final = (
    "A near cache needs one Redis server that tells of changes, and this is a Redis Cluster; declare the feature sets without "
    "near_cache, or keep them on a server by itself."
)


class TrackedSession(Session):
    """A session that puts aside what the server tells of changes."""

    def __init__(self, connection: Any, server: Server) -> None:
        super().__init__(connection, server)
        self.told: list[Any] = []
        # The parser swallows what a handler raises; to put it aside raises nothing.
        connection._parser.set_invalidation_push_handler(self.told.append)

    def read(self) -> Reply:
        """See `Session.read`. redis-py would call itself for all that is told before the reply, once within the other."""
        parser, gets = self._connection._parser, self._connection._parser._reader.gets
        with self._translated:
            while (reply := gets(False)) is NOT_ENOUGH_DATA or isinstance(reply, PushNotification):
                if reply is NOT_ENOUGH_DATA:
                    parser.read_from_socket()
                else:
                    self.told.append(reply)
            if isinstance(reply, RedisError):
                raise reply
        self._used_at = time.monotonic()
        return reply

    def listen(self) -> None:
        """Read what has come, without waiting for more.

        Raises:
            FeatureStoreDown: the server has closed the connection.
        """
        with self._translated:
            while self._connection.can_read(0):
                self._connection.read_response(disable_decoding=True, push_request=True)


class TrackingServer(Server):
    """A server that tells its sessions of changes; the arguments are those of `Server`."""

    def __init__(self, url: str, timeout_s: float = 1.0, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(url, timeout_s, {**(options or {}), "protocol": 3})

    def connect(self) -> TrackedSession:
        return TrackedSession(self._connection_class(**self._arguments), self)


class Connects(Protocol):
    """What `Tracking` needs of a server."""

    def connect(self) -> TrackedSession: ...


class Tracking:
    """The connection, for one thread at a time. After an error it is closed, and nothing that was read through it is watched."""

    def __init__(self, server: Connects, clock: Clock) -> None:
        """
        Args:
            clock: whose time `confirmed_at` is.
        """
        self._server = server
        self._clock = clock
        self._session: TrackedSession | None = None
        self._process = 0
        self.confirmed_at = float("-inf")
        """What was told so far is all that changed before then, at least."""

    def connect(self) -> None:
        """Begin anew: nothing is watched yet.

        Raises:
            FeatureStoreDown: the server cannot be reached, or does not track.
            ConfigError: it is a node of a cluster.
        """
        self.close()
        session = self._server.connect()
        asked_at = self._clock.now()
        if session.call("HELLO", "3")[b"mode"] == b"cluster":
            session.close()
            raise ConfigError(_NO_CLUSTER)
        session.call("CLIENT", "TRACKING", "ON", "OPTIN")
        self._session, self._process, self.confirmed_at = session, os.getpid(), asked_at

    def listen(self) -> bool:
        """Read what has come, without waiting; whether there still is a connection."""
        # One that is shared with the parent process would mix up the news of both.
        if self._session is None or self._process != os.getpid():
            return False
        try:
            self._session.listen()
        except FeatureStoreDown:
            self.close()
            return False
        return True

    def confirm(self) -> None:
        """Wait until all that has changed by now is told.

        Raises:
            FeatureStoreDown: the server does not answer.
        """
        self._exchange(pack("PING"), 1)

    def ask(self, keys: Sequence[bytes], watched: Sequence[bytes]) -> tuple[list[Any], list[Any]]:
        """The values of ``keys``, and of those that are to be watched from now on; one round trip, none if there are no keys.

        Raises:
            FeatureStoreDown: the server does not answer.
        """
        packed = [pack("MGET", *keys)] if keys else []
        packed += [pack("CLIENT", "CACHING", "YES"), pack("MGET", *watched)] if watched else []
        if not packed:
            return [], []
        replies = self._exchange(b"".join(packed), len(packed))
        return (replies[0] if keys else []), (self._whole(replies[-1]) if watched else [])

    def told(self) -> list[bytes | None]:
        """Keys that changed since the last call; ``None`` among them: any key may have."""
        if self._session is None or not self._session.told:
            return []
        news = list(chain.from_iterable([None] if keys is None else keys for _, keys in self._session.told))
        self._session.told.clear()
        return news

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _exchange(self, packed: bytes, replies: int) -> list[Any]:
        assert self._session is not None
        asked_at = self._clock.now()
        try:
            self._session.send(packed)
            read = [self._session.read() for _ in range(replies)]
        except FeatureStoreDown:
            self.close()
            raise
        self.confirmed_at = asked_at
        return read

    def _whole(self, values: list[Any]) -> list[Any]:
        """Early versions of Redis 6 could tell of an expired key within a reply: every value behind it would be another's."""
        if set(map(type, values)) <= _VALUES:
            return values
        self.close()
        raise FeatureStoreDown(
            "Redis told of a change within a reply, as early versions of Redis 6 do; it is asked again. Use a later version, "
            "or no near cache."
        )
