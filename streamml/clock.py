"""Time as a value that is handed in: decisions never read a clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where runtime and tests get the time from."""

    def now(self) -> float:
        """Seconds since 1970, UTC; comparable with record timestamps."""
        ...


class SystemClock:
    """Wall time carried forward by the monotonic clock, so that a step of the wall clock moves no deadline."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._offset


class ManualClock:
    """Time that moves only when told to."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"Time cannot move back by {-seconds} s.")
        self._now += seconds
