"""Rows in the order that they came, as the batches that they came in."""

from __future__ import annotations

from collections import deque

import numpy as np

from streamml.batch.microbatch import Int, MicroBatch


class RowQueue:
    """Rows first in, first out. What bounds it is said at `Batcher.put`."""

    def __init__(self) -> None:
        self._parts: deque[MicroBatch] = deque()
        self.rows = 0

    def put(self, batch: MicroBatch) -> None:
        if len(batch):
            self._parts.append(batch)
            self.rows += len(batch)

    def take(self, rows: int) -> MicroBatch:
        """The first ``rows`` rows, of at least as many."""
        self.rows -= rows
        parts: list[MicroBatch] = []
        while rows:
            part = self._parts.popleft()
            if len(part) > rows:
                self._parts.appendleft(part.take(slice(rows, None)))
                part = part.take(slice(0, rows))
            parts.append(part)
            rows -= len(part)
        return MicroBatch.join(parts)

    def drop(self, slots: set[int]) -> None:
        """Forget the rows of these slots."""
        closed = list(slots)
        kept = (part.take(~np.isin(part.origin.slot, closed)) for part in self._parts)
        self._parts = deque(part for part in kept if len(part))
        self.rows = sum(map(len, self._parts))

    def earliest(self, born: str | None) -> int:
        """The least of `times`; there have to be rows."""
        return min(int(times(part, born).min()) for part in self._parts)


def times(batch: MicroBatch, born: str | None) -> Int:
    """When each row began, in ms since 1970 UTC; int64 ``[n]``.

    Args:
        born: column of event times; ``None``: the record's timestamp counts.
    """
    if born is None:
        return batch.origin.timestamp
    moments: Int = np.asarray(batch.columns[born]).view(np.int64)
    return moments // 1000
