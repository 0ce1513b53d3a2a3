"""How often a model may be called, and what it may cost."""

from __future__ import annotations

from typing import Final

_DAY_S: Final = 86_400.0


class Allowance:
    """Spaces calls evenly, and bounds what they cost in a day. Time is given, in seconds of any monotonic clock."""

    def __init__(self, rate: float | None = None, cost: float = 0.0, cost_cap: float | None = None) -> None:
        """
        Args:
            rate: most calls a second; ``None``: any.
            cost: of one row.
            cost_cap: most in 24 hours from the first row; ``None``: any.
        """
        self._interval_s = 0.0 if rate is None else 1.0 / rate
        self._cost = cost
        self._cap = cost_cap
        self._next_at = float("-inf")
        self._day_began = float("-inf")
        self.spent = 0.0
        """Cost of the rows of this day."""

    def turn(self, now: float) -> float:
        """Take the next turn to call; returns the seconds until then."""
        at = max(now, self._next_at)
        self._next_at = at + self._interval_s
        return at - now

    def spend(self, rows: int, now: float) -> float:
        """Take the cost of ``rows`` rows out; returns 0, or, where the day's allowance has not that much, the seconds until it is renewed."""
        if self._cap is None:
            return 0.0
        left = self._day_began + _DAY_S - now
        if left <= 0:
            self._day_began, self.spent = now, 0.0
        cost = rows * self._cost
        # A sum of costs may exceed the cap by what floating point rounds.
        if self.spent + cost > self._cap * (1 + 1e-9):
            return left
        self.spent += cost
        return 0.0
