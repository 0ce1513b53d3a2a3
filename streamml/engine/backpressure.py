"""How much may be on its way at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """Bound of a buffer (promise B2).

    What comes in one piece may overshoot it, so the exact most is one row or byte less than the budget plus one piece.

    Args:
        rows: records or rows.
        size_bytes: bytes of their keys and values.
    """

    rows: int
    size_bytes: int


class Gauge:
    """What a buffer holds, against its budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.rows = 0
        self.size_bytes = 0
        self.most_rows = 0
        self.most_bytes = 0

    @property
    def room(self) -> bool:
        """Whether another piece may come in."""
        return self.rows < self._budget.rows and self.size_bytes < self._budget.size_bytes

    def add(self, rows: int, size_bytes: int) -> None:
        """Count records in (positive) or out (negative)."""
        self.rows += rows
        self.size_bytes += size_bytes
        if rows > 0 or size_bytes > 0:
            self.most_rows = max(self.most_rows, self.rows)
            self.most_bytes = max(self.most_bytes, self.size_bytes)

    def clear(self) -> None:
        """Nothing is in it any more."""
        self.rows = self.size_bytes = 0
