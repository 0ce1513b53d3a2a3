"""What a stored value is worth to a row: there, missing, too old, or from the row's future (promise F2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamml.batch.microbatch import Int, Mask


class State(enum.IntEnum):
    """How a set answered for one row; the number is its code in an array."""

    FRESH = 0
    MISSING = 1
    STALE = 2
    FROM_FUTURE = 3
    UNAVAILABLE = 4

    @property
    def flag(self) -> str:
        """What is written behind ``set@version`` in the prediction's flags."""
        return "" if self is State.FRESH else f":{self.name.lower()}"


def states(present: Mask, row_time: Int, event_time: Int, ttl_us: int | None) -> npt.NDArray[np.int8] | None:
    """The state of each row, int8 ``[n]``; ``None`` where all are fresh.

    Age = row time − time that the value describes, both int64 ``[n]``, µs. Older than ``ttl_us`` is stale; younger than
    nothing is from the future: the value knows what the row could not.
    """
    age = row_time - event_time
    fresh = present & (age >= 0)
    if ttl_us is not None:
        fresh &= age <= ttl_us
    if np.count_nonzero(fresh) == len(fresh):
        return None
    found = np.where(present, State.FRESH, State.MISSING).astype(np.int8)
    if ttl_us is not None:
        found[present & (age > ttl_us)] = State.STALE
    found[present & (age < 0)] = State.FROM_FUTURE
    return found


@dataclass(slots=True)
class DefaultsMeter:
    """Share of rows that get defaults for want of a value, among the latest ones (promise F3).

    Only what passed is remembered, so that one good batch after a mended load opens the way again.

    Args:
        max_ratio: share above which rows do not pass.
        window: rows that the share is taken over.
    """

    max_ratio: float
    window: int = 1000
    _rows: int = 0
    _defaulted: int = 0

    def share(self, rows: int, defaulted: int) -> float | None:
        """The share with these rows if it is over the limit; otherwise ``None``, and they are remembered."""
        seen, without = self._rows + rows, self._defaulted + defaulted
        if seen >= self.window and without > self.max_ratio * seen:
            return without / seen
        fade = min(1.0, self.window / seen)
        self._rows, self._defaulted = int(seen * fade), int(without * fade)
        return None
