"""When the rows that wait for a stage become a batch, and how many of them."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

import numpy as np

from streamml.batch.microbatch import MicroBatch


class Flush(enum.Enum):
    """Why a batch was dispatched (promise M4)."""

    FREE = "free"
    """The stage was free; the batch is what was queued."""
    FULL = "full"
    """The stage was free and at least a whole batch was queued."""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Size of a batch as a function of what waits. No timer: a free stage takes what is queued (promise M1).

    What a latency budget and the measured cost of a batch allow is not looked at yet; the place for it is `decide`.

    Args:
        max_rows: most rows of a batch.
        explodes: whether the stage makes many rows of one; then its first batch is small, as nobody knows how many.
    """

    max_rows: int
    explodes: bool = False

    def decide(self, queued_rows: int, growth: float = 1.0) -> tuple[int, Flush] | None:
        """Rows to dispatch now that the stage is free, and why; ``None`` while nothing waits.

        Args:
            growth: rows that the stage makes of one; a batch is so small that it makes ``max_rows`` of them (promise B2).
        """
        if not queued_rows:
            return None
        most = max(1, int(self.max_rows / growth))
        return (most, Flush.FULL) if queued_rows >= most else (queued_rows, Flush.FREE)


class Batcher:
    """Rows that wait for one stage, first in first out."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._parts: deque[MicroBatch] = deque()
        self._rows = 0
        self._size_bytes = 0.0

    @property
    def size_bytes(self) -> float:
        """Bytes of these rows, as far as they were told, shared out evenly among them."""
        return self._size_bytes

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self._rows

    def put(self, batch: MicroBatch, size_bytes: int = 0) -> None:
        """Queue rows, of so many bytes beyond what the worker's budget counts already.

        What bounds them is that budget (`streamml.engine.backpressure`), and for rows that a stage has made of others, that
        it rests while more than two batches, or more bytes than the budget, wait after it.
        """
        if len(batch):
            self._parts.append(batch)
            self._rows += len(batch)
            self._size_bytes += size_bytes

    def take(self, growth: float = 1.0) -> tuple[MicroBatch, Flush] | None:
        """The next batch, or ``None`` while nothing waits; ``growth`` as in `BatchPolicy.decide`."""
        decision = self._policy.decide(self._rows, growth)
        if decision is None:
            return None
        wanted, reason = decision
        parts: list[MicroBatch] = []
        while wanted:
            part = self._parts.popleft()
            if len(part) > wanted:
                self._parts.appendleft(part.take(slice(wanted, None)))
                part = part.take(slice(0, wanted))
            parts.append(part)
            wanted -= len(part)
        batch = MicroBatch.join(parts)
        self._leave(len(batch))
        return batch, reason

    def _leave(self, rows: int) -> None:
        self._size_bytes -= self._size_bytes * rows / self._rows if self._rows else 0.0
        self._rows -= rows

    def drop(self, slots: set[int]) -> None:
        """Forget the rows of these slots."""
        closed = list(slots)
        kept = (part.take(~np.isin(part.origin.slot, closed)) for part in self._parts)
        self._parts = deque(part for part in kept if len(part))
        self._leave(self._rows - sum(len(part) for part in self._parts))
