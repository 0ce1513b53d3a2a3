"""How long to wait before the next try, and how many tries may be second ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter, and a bound.

    The jitter is "equal jitter" as in Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): half of
    the delay is fixed, half is random, so that many workers do not come back at once.

    Args:
        first_s: delay before the second try.
        most_s: longest delay.
    """

    first_s: float = 0.1
    most_s: float = 5.0

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait after failed try number ``attempt`` (from 1), with ``random`` in [0, 1)."""
        whole = min(self.most_s, self.first_s * 2.0 ** min(attempt - 1, 32))
        return whole / 2 + whole / 2 * random


class RetryBudget:
    """Bounds the retries of a worker to a share of its first tries, so that its stages do not hammer what is nearly down.

    A token bucket: a first try earns ``share`` of a retry, a retry costs a whole one, and a few come with time, as an outage
    without any retry would never be found to be over. After the "retry budget" of "Site Reliability Engineering" (Beyer
    and others, 2016, chapter 21), with the least rate of Finagle's ``RetryBudget``; gRPC calls it retry throttling (proposal A6).
    A retry that has to wait is put off, never given up.
    """

    def __init__(self, *, share: float = 0.2, free_per_s: float = 1.0, most: float = 10.0) -> None:
        """
        Args:
            share: retries that one first try earns.
            free_per_s: retries that come with time.
            most: retries that can be saved up; there are as many at the start.
        """
        self._share = share
        self._free_per_s = free_per_s
        self._most = most
        self._saved = most
        self._at = float("-inf")

    def earn(self) -> None:
        """A first try was made."""
        self._saved = min(self._most, self._saved + self._share)

    def spend(self, now: float) -> float:
        """Take a retry out; returns the seconds until it may be made."""
        passed = max(0.0, now - self._at)
        self._at = max(self._at, now)
        self._saved = min(self._most, self._saved + passed * self._free_per_s) - 1.0
        return max(0.0, -self._saved / self._free_per_s)
