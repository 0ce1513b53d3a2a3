"""Whether something that may be down is asked at all."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

# Who comes back after the time that was named must not be told to wait for the rest of a rounding.
_ROUNDING_S: Final = 1e-5


class Circuit(enum.Enum):
    """State of a `Breaker`.

    CLOSED to OPEN by failures in a row; OPEN to HALF_OPEN by whoever comes first after an interval; HALF_OPEN to OPEN by a
    failure, to CLOSED by a success.
    """

    CLOSED = "closed"
    """Everybody asks."""
    OPEN = "open"
    """Nobody asks."""
    HALF_OPEN = "half_open"
    """One asks, the others wait for how that goes."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and how often it then lets one through.

    Args:
        failures: in a row.
        first_s: least time from the last failure, or the start of a probe, to the next probe; each failure doubles it.
        most_s: longest such time. Who is let through may wait for a timeout, so this is their share of the time.
    """

    failures: int = 3
    first_s: float = 1.0
    most_s: float = 5.0


class Breaker:
    """A circuit breaker, one for each thing that may be down (Nygard, "Release It!", 2007, chapter 5).

    Whoever was admitted says how it went. One who never does keeps nobody out: the next probe comes an interval later.
    """

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._probe_at = 0.0
        self.circuit = Circuit.CLOSED

    def admit(self, now: float) -> float:
        """0.0 for who may ask now; else the seconds until somebody may."""
        if self.circuit is Circuit.CLOSED:
            return 0.0
        wait = self._probe_at - now
        if wait > _ROUNDING_S:
            return wait
        self.circuit, self._probe_at = Circuit.HALF_OPEN, now + self._interval
        return 0.0

    def succeeded(self) -> bool:
        """It answered; returns whether that closed the circuit."""
        closes = self.circuit is not Circuit.CLOSED
        self.circuit, self._failures = Circuit.CLOSED, 0
        return closes

    def failed(self, now: float) -> bool:
        """It did not answer; returns whether that opened a circuit that was closed."""
        self._failures += 1
        if self._failures < self._policy.failures:
            return False
        opens = self.circuit is Circuit.CLOSED
        self.circuit, self._probe_at = Circuit.OPEN, now + self._interval
        return opens

    @property
    def _interval(self) -> float:
        more = min(self._failures - self._policy.failures, 32)
        return min(self._policy.most_s, self._policy.first_s * 2.0**more)
