"""Writes latest predictions on a thread of its own, however long Redis is away."""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.latest import SCRIPT
from streamml.adapters.redis.line import SCRIPTS_IN_FLIGHT, rows_per_script, script_calls
from streamml.adapters.redis.nodes import Nodes
from streamml.engine.retry import Backoff
from streamml.errors import FeatureStoreDown

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    token: int
    keys: list[bytes]
    values: list[bytes]


class LatestWriter:
    """Takes keys and values by token, in order, and says which tokens are stored. The caller bounds what is under way."""

    def __init__(self, server: Server, keep_ms: int) -> None:
        """
        Args:
            keep_ms: how long a prediction is kept after it was written; 0: for ever.
        """
        self._nodes = Nodes(server)
        self._keep_ms = keep_ms
        self._jobs: deque[_Job] = deque()
        self._done: deque[int] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._generation = 0
        self._trouble: str | None = None
        self._thread: threading.Thread | None = None

    def ping(self) -> None:
        """Whether Redis answers.

        Raises:
            FeatureStoreDown: it does not.
        """
        self._nodes.everywhere("PING")

    def put(self, token: int, keys: list[bytes], values: list[bytes]) -> None:
        """Store these; never waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="streamml-latest", daemon=True)
            self._thread.start()
        with self._changed:
            self._jobs.append(_Job(token, keys, values))
            self._changed.notify_all()

    def done(self) -> list[int]:
        """Tokens that were stored since the last call."""
        with self._changed:
            found = list(self._done)
            self._done.clear()
        return found

    def forget(self) -> None:
        """Let go of what is not stored yet, as it will be put again."""
        with self._changed:
            self._jobs.clear()
            self._generation += 1

    def wait(self, timeout_s: float) -> int:
        """Wait until everything is stored; returns the number of rows that are not."""
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs, timeout_s)
            return sum(len(job.keys) for job in self._jobs)

    @property
    def trouble(self) -> str | None:
        """Why nothing is stored; ``None`` while it is."""
        return self._trouble

    def close(self, timeout_s: float) -> int:
        """Wait, then end the thread; returns the number of rows that are not stored."""
        left = self.wait(timeout_s)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is None:
            self._nodes.close()
        return left

    def _run(self) -> None:
        attempts, script = 0, b""
        while (found := self._next()) is not None:
            job, generation = found
            try:
                script = script or self._nodes.everywhere("SCRIPT", "LOAD", SCRIPT)[0]
                self._store(script, job)
            except FeatureStoreDown as error:
                attempts, script = attempts + 1, b""
                self._failed(error, attempts)
                continue
            attempts, self._trouble = 0, None
            self._stored(job, generation)
        self._nodes.close()

    def _next(self) -> tuple[_Job, int] | None:
        """The oldest job, which stays at its place until it is stored; ``None`` at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            return None if self._closed else (self._jobs[0], self._generation)

    def _store(self, script: bytes, job: _Job) -> None:
        most = rows_per_script(max(map(len, job.values), default=0))
        step = most * SCRIPTS_IN_FLIGHT
        for start in range(0, len(job.keys), step):
            keys, values = job.keys[start : start + step], job.values[start : start + step]
            self._nodes.exchange(*script_calls(self._nodes, script, keys, self._keep_ms, values, most))

    def _stored(self, job: _Job, generation: int) -> None:
        with self._changed:
            if generation == self._generation:
                self._jobs.popleft()
                self._done.append(job.token)
            self._changed.notify_all()

    def _failed(self, error: FeatureStoreDown, attempts: int) -> None:
        if self._trouble is None:
            _LOG.warning("Latest predictions wait for Redis, and with them the positions of this worker: %s", error)
        self._trouble = f"Latest predictions are not taken: {error}"
        with self._changed:
            self._changed.wait_for(lambda: self._closed, Backoff().delay(attempts, random.random()))  # noqa: S311  jitter
