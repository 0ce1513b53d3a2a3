"""Connections to a Redis server; whatever goes wrong on one becomes a sentence."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import hiredis
import redis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    RedisError,
    TryAgainError,
)

from streamml.adapters.redis.sentences import what_happened
from streamml.adapters.redis.slots import Address
from streamml.errors import ConfigError, FeatureStoreDown

Reply = Any
_READ_BYTES: Final = 1 << 20
_TRUST_S: Final = 0.5
_PORT: Final = 6379
_BAD_URL: Final = (
    "The URL or an option of Redis is not valid; write redis://[user[:password]@]host[:port][,host[:port]…][/database] "
    "(rediss:// for TLS), percent-encode special characters of the password, and use only options of redis-py."
)


class ServerAway(FeatureStoreDown):
    """A server cannot be reached, or another one is about to take its place; one that refuses what it is asked is there."""


class SlotMoved(ServerAway):
    """The slot of a key is at another node of the cluster, or on its way there."""


def pack(*command: bytes | str | int) -> bytes:
    """One command as it is sent."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type] # declared for one argument only
    return packed


class Server:
    """One Redis server and how to reach it. Building it opens nothing.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user and database if wanted. Several hosts, separated by
            commas, are nodes of one Redis Cluster; the server is the first of them.
        timeout_s: how long to wait for a connection, and for any part of a reply.
        options: further arguments of a redis-py connection (``username``, ``password``, ``ssl_ca_certs`` …), which
            override the URL's.

    Raises:
        ConfigError: the URL is none of Redis, an option is unknown, or the timeout is nothing.
    """

    def __init__(self, url: str, timeout_s: float = 1.0, options: Mapping[str, Any] | None = None) -> None:
        if not isinstance(timeout_s, (int, float)) or not timeout_s > 0:
            raise ConfigError(f"The timeout for Redis is {timeout_s!r}; it has to be a number of seconds above 0.")
        self._timeout_s = timeout_s
        settings = {
            # Version 2 of the protocol needs no HELLO, which old servers and narrow ACLs refuse.
            "protocol": 2,
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "socket_read_size": _READ_BYTES,
            **(options or {}),
        }
        try:
            _refuse_misread(url)
            first, self._others = _hosts(url)
            pool = redis.ConnectionPool.from_url(first, **settings)
            # What the caller passes wins over the URL; redis-py lets the URL win.
            self._arguments: dict[str, Any] = {**pool.connection_kwargs, **(options or {})}
            self._connection_class: Any = pool.connection_class
            self._connection_class(**self._arguments)
            self._is_node = False
        except (ValueError, TypeError, RedisError):
            # The client's own message, and its cause, may quote the password.
            raise ConfigError(_BAD_URL) from None
        self.where = _where(self._arguments)

    def __repr__(self) -> str:
        return f"Server({self.where})"

    @property
    def database(self) -> int:
        """Number of the database."""
        return int(self._arguments.get("db") or 0)

    @property
    def host(self) -> str:
        """Its name or address; that of a unix socket is empty."""
        return "" if "path" in self._arguments else str(self._arguments.get("host", "localhost"))

    @property
    def _tls(self) -> bool:
        return issubclass(self._connection_class, redis.SSLConnection)

    @property
    def named(self) -> tuple[Server, ...]:
        """All that the URL names, this one first."""
        return (self, *map(self.at, self._others))

    def at(self, address: Address) -> Server:
        """Another node of the same cluster, reached in the same way."""
        found = copy.copy(self)
        found._others, found._is_node = (), True
        found._arguments = {**self._arguments, "host": address[0], "port": address[1]}
        found.where = _where(found._arguments)
        return found

    def connect(self) -> Session:
        """A new connection; it is opened by its first command."""
        return Session(self._connection_class(**self._arguments), self)

    def unavailable(self, error: Exception) -> FeatureStoreDown:
        """What went wrong, in a sentence without secrets."""
        user = str(self._arguments.get("username") or "default")
        said = what_happened(error, user, self._timeout_s, is_node=self._is_node, tls=self._tls)
        return _kind(error)(f"Redis at {self.where} {said}")


def _kind(error: Exception) -> type[FeatureStoreDown]:
    match error:
        case AskError() | TryAgainError():
            return SlotMoved
        case AuthenticationError() | AuthorizationError():
            return FeatureStoreDown
        case redis.ConnectionError() | redis.TimeoutError() | OSError():
            return ServerAway
        case ClusterDownError() | MovedError() | MasterDownError():
            return ServerAway
        case _:
            return FeatureStoreDown


def _refuse_misread(url: str) -> None:
    """A password with ``/``, ``?`` or ``#`` as they are ends the address early: its rest would be taken, and told, as a host."""
    parts = urlsplit(url)
    if parts.scheme in ("redis", "rediss") and "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise ValueError


def _hosts(url: str) -> tuple[str, tuple[Address, ...]]:
    """The URL with its first host alone, and the others."""
    parts = urlsplit(url)
    login, at, named = parts.netloc.rpartition("@")
    first, *others = named.split(",")
    if others and not first:
        raise ValueError
    read = [urlsplit(f"//{one}") for one in others]
    if any(one.hostname is None for one in read):
        raise ValueError
    alone = parts._replace(netloc=f"{login}{at}{first}").geturl() if others else url
    return alone, tuple((one.hostname or "", one.port or _PORT) for one in read)


def _where(arguments: Mapping[str, Any]) -> str:
    return str(arguments.get("path") or f"{arguments.get('host', 'localhost')}:{arguments.get('port', _PORT)}")


class _Process:
    """Which process this is, without asking the kernel: that costs as much as the rest of a small lookup."""

    forks = 0

    @classmethod
    def forked(cls) -> None:
        cls.forks += 1


os.register_at_fork(after_in_child=_Process.forked)


class Session:
    """One connection, for one thread at a time. After an error it is closed and of no more use."""

    def __init__(self, connection: Any, server: Server) -> None:
        self._connection = connection
        self._translated = _Translated(connection, server)
        self._used_at = float("-inf")
        self._forks = _Process.forks

    def call(self, *command: bytes | str | int) -> Reply:
        """Send one command and wait for its reply.

        Raises:
            FeatureStoreDown: the server does not answer, or answers with an error.
        """
        with self._translated:
            self._connection.send_packed_command([pack(*command)])
            reply = self._connection.read_response(disable_decoding=True)
        self._used_at = time.monotonic()
        return reply

    def send(self, packed: bytes) -> None:
        """Send packed commands without waiting.

        Raises:
            FeatureStoreDown: the server cannot be reached.
        """
        with self._translated:
            self._connection.send_packed_command([packed])

    def read(self) -> Reply:
        """The next reply, texts as bytes.

        Raises:
            FeatureStoreDown: the server does not answer, or answers with an error.
        """
        with self._translated:
            reply = self._connection.read_response(disable_decoding=True)
        self._used_at = time.monotonic()
        return reply

    def read_many(self, count: int) -> list[Reply]:
        """The next replies, texts as bytes; one that is an error of the server stands among them as an exception.

        Raises:
            FeatureStoreDown: the server does not answer.
        """
        replies: list[Reply] = []
        with self._translated:
            # One by one through redis-py they would take longer than the server does.
            parser = self._connection._parser
            gets, missing = parser._reader.gets, NOT_ENOUGH_DATA
            while len(replies) < count:
                reply = gets(False)
                if reply is missing:
                    parser.read_from_socket()
                else:
                    replies.append(reply)
        self._used_at = time.monotonic()
        return replies

    def usable(self) -> bool:
        """Whether the connection is open with nothing unread; the server may have closed it meanwhile.

        One that was just used is taken on trust: looking costs as much as a small lookup.
        """
        if time.monotonic() - self._used_at < _TRUST_S and self._forks == _Process.forks:
            return True
        try:
            # A socket shared with the parent process would mix up the replies of both.
            return self._connection.pid == os.getpid() and not self._connection.can_read(0)
        except (RedisError, OSError):
            return False

    def close(self) -> None:
        self._connection.disconnect()


class _Translated:
    """Around what a session does: errors become ours and end the session. A class, as a generator for each call costs more."""

    __slots__ = ("_connection", "_server")

    def __init__(self, connection: Any, server: Server) -> None:
        self._connection = connection
        self._server = server

    def __enter__(self) -> None:
        """Nothing to do yet."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        self._connection.disconnect()
        if isinstance(error, (RedisError, OSError)):
            # Not chained: the client's error may repeat what was sent.
            raise self._server.unavailable(error) from None
