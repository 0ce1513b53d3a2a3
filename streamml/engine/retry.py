"""How long to wait before the next try."""

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
