"""How much may be on its way at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """Bound on what was polled and is not settled (promise B2).

    One poll may overshoot it, so the exact most is the budget plus one poll.

    Args:
        rows: records.
        size_bytes: bytes of their keys and values.
    """

    rows: int
    size_bytes: int


class Gauge:
    """What is on its way, against its budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.rows = 0
        self.size_bytes = 0
        self.most_rows = 0
        self.most_bytes = 0

    @property
    def room(self) -> bool:
        """Whether another poll may be taken."""
        return self.rows < self._budget.rows and self.size_bytes < self._budget.size_bytes

    def add(self, rows: int, size_bytes: int) -> None:
        """Count records in (positive) or out (negative)."""
        self.rows += rows
        self.size_bytes += size_bytes
        self.most_rows = max(self.most_rows, self.rows)
        self.most_bytes = max(self.most_bytes, self.size_bytes)
