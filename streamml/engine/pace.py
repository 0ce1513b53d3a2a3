"""How many records may be taken now, at a given rate."""

from __future__ import annotations

from typing import Final

_BURST_S: Final = 0.1


class Pace:
    """At most ``rate`` records a second, and never more at once than one and what comes in a tenth of a second; none while it is held."""

    def __init__(self, rate: float | None, now: float) -> None:
        """
        Args:
            rate: records a second; ``None``: as many as there are.
        """
        self._rate = rate
        self._most = 1.0 + (rate or 0.0) * _BURST_S
        self._there = self._most
        self._at = now
        self.held = ""
        """Why nothing is taken; empty where something is. Any thread may set it."""

    def rows(self, now: float, wanted: int) -> int:
        """How many of ``wanted`` records may be taken."""
        if self.held:
            return 0
        if self._rate is None:
            return wanted
        self._there = min(self._most, self._there + (now - self._at) * self._rate)
        self._at = now
        return min(wanted, int(self._there))

    def took(self, rows: int) -> None:
        """So many were."""
        self._there -= rows
