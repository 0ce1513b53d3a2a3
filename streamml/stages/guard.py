"""A circuit breaker around a dependency, shared by all stages that need it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from streamml.clock import Clock
from streamml.engine.breaker import Breaker, BreakerPolicy, Circuit
from streamml.errors import FeatureStoreDown, TransientError
from streamml.ports.feature_store import FeatureReply, FeatureRequest, FeatureStore

_LOG: Final = logging.getLogger("streamml.worker")
T = TypeVar("T")


class Guard:
    """Asks a dependency while it answers; while it does not, says so at once, and asks once in an interval.

    Safe to share between threads: the lock is held to decide, never while somebody asks.
    """

    def __init__(
        self, name: str, down: type[TransientError], clock: Clock, policy: BreakerPolicy | None = None
    ) -> None:
        """
        Args:
            name: of the dependency, for people and metrics.
            down: what its calls raise when it does not answer; whatever else they raise is an answer.
        """
        self.name = name
        self.openings = 0
        """How often the breaker has opened."""
        self._down = down
        self._clock = clock
        self._breaker = Breaker(policy or BreakerPolicy())
        self._lock = threading.Lock()
        self._opened_at = 0.0
        self._reason = ""

    @property
    def open(self) -> bool:
        """Whether it did not answer of late."""
        return self._breaker.circuit is not Circuit.CLOSED

    def ask(self, call: Callable[[], T]) -> T:
        """What ``call`` returns.

        Raises:
            TransientError: of the class ``down``, while the breaker is open, with the time until it is useful to try again.
        """
        with self._lock:
            wait = self._breaker.admit(self._clock.now())
        if wait:
            raise self._down(f"{self._reason} It is asked again in {wait:.1f} s.", retry_in_s=wait)
        try:
            answer = call()
        except self._down as error:
            self._failed(error)
            raise
        except TransientError:
            self._answered()
            raise
        self._answered()
        return answer

    def _failed(self, error: TransientError) -> None:
        with self._lock:
            now = self._clock.now()
            self._reason = str(error)
            if not self._breaker.failed(now):
                return
            self._opened_at = now
            self.openings += 1
        _LOG.warning("The %s is asked only once in a while until it answers: %s", self.name, error)

    def _answered(self) -> None:
        with self._lock:
            if not self._breaker.succeeded():
                return
            seconds = self._clock.now() - self._opened_at
        _LOG.warning("The %s answers again, after %.1f s.", self.name, seconds)


class GuardedStore:
    """The port `FeatureStore` with a breaker before it."""

    def __init__(self, store: FeatureStore, guard: Guard) -> None:
        self._store = store
        self._guard = guard

    def lookup(self, requests: Sequence[FeatureRequest]) -> list[FeatureReply]:
        """See the port; while the breaker is open, `FeatureStoreDown` at once."""
        return self._guard.ask(lambda: self._store.lookup(requests))

    def ping(self) -> None:
        """See the port."""
        self._guard.ask(self._store.ping)

    def close(self) -> None:
        """See the port."""
        self._store.close()


def feature_store_guard(clock: Clock) -> Guard:
    """The breaker before a feature store."""
    return Guard("feature store", FeatureStoreDown, clock)
