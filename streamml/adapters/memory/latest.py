"""Latest predictions in this process, by the rule of Redis: for tests of one's own topologies."""

from __future__ import annotations

import math
from collections import deque

from streamml.adapters.redis.latest import Latest, latest_keys, rank, unpacked
from streamml.clock import Clock
from streamml.errors import FeatureStoreDown


class MemoryLatest:
    """What Redis would hold of a `RedisSink`; it can be unavailable on purpose.

    Args:
        ttl_s: how long a prediction is kept after it was written; 0: for ever.
    """

    def __init__(self, name: str, ttl_s: float, clock: Clock) -> None:
        self.down: str | None = None
        self._name = name
        self._ttl_s = ttl_s or math.inf
        self._clock = clock
        self._stored: dict[bytes, tuple[bytes, float]] = {}

    def get(self, key: str | bytes) -> Latest | None:
        """The latest prediction of a key; ``None``: there is none, or its ttl is over."""
        as_bytes = key.encode() if isinstance(key, str) else key
        stored = self._now(latest_keys(self._name, [as_bytes])[0])
        return None if stored is None else unpacked(stored)

    def all(self) -> dict[bytes, Latest]:
        """Everything that is there, by the keys of Redis."""
        found = {place: self._now(place) for place in self._stored}
        return {place: unpacked(stored) for place, stored in found.items() if stored is not None}

    def fail(self, reason: str) -> None:
        """Be unavailable until `recover`."""
        self.down = reason

    def recover(self) -> None:
        self.down = None

    def write(self, place: bytes, new: bytes) -> None:
        """Keep the newer one."""
        old = self._now(place)
        newer = new if old is None or rank(new) >= rank(old) else old
        self._stored[place] = (newer, self._clock.now() + self._ttl_s)

    def _now(self, place: bytes) -> bytes | None:
        stored, until = self._stored.get(place, (None, 0.0))
        return stored if self._clock.now() < until else None


class MemoryLatestWriter:
    """Writes to a `MemoryLatest` when it is asked what is done; see `streamml.adapters.redis.latest_sink.Keeper`."""

    def __init__(self, latest: MemoryLatest) -> None:
        self._latest = latest
        self._jobs: deque[tuple[int, list[bytes], list[bytes]]] = deque()

    def ping(self) -> None:
        if self._latest.down is not None:
            raise FeatureStoreDown(self._latest.down)

    def put(self, token: int, keys: list[bytes], values: list[bytes]) -> None:
        self._jobs.append((token, keys, values))

    def done(self) -> list[int]:
        tokens: list[int] = []
        while self._jobs and self._latest.down is None:
            token, keys, values = self._jobs.popleft()
            for place, value in zip(keys, values, strict=True):
                self._latest.write(place, value)
            tokens.append(token)
        return tokens

    def forget(self) -> None:
        self._jobs.clear()

    def wait(self, timeout_s: float) -> int:
        return sum(len(keys) for _, keys, _ in self._jobs) if self._latest.down is not None else 0

    @property
    def trouble(self) -> str | None:
        return self._latest.down

    def close(self, timeout_s: float) -> int:
        return self.wait(timeout_s)
