"""Connections to one Redis server, shared by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from streamml.adapters.redis.connection import Server, Session


class Pool:
    """Sessions by the call: as many as there are calls at a time, kept open between calls."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle: deque[Session] = deque()
        self._closed = False

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session for one exchange, which has read every reply when it leaves."""
        session = self._take()
        try:
            yield session
        except BaseException:
            session.close()
            raise
        self._idle.append(session)
        if self._closed:
            self.close()

    def _take(self) -> Session:
        while self._idle:
            try:
                session = self._idle.pop()
            except IndexError:
                break
            if session.usable():
                return session
            session.close()
        return self._server.connect()

    def close(self) -> None:
        """Close what is idle, and what is in use as soon as its call ends."""
        self._closed = True
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                break
