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

    Args:
        max_rows: most rows of a batch.
    """

    max_rows: int

    def decide(self, queued_rows: int) -> tuple[int, Flush] | None:
        """Rows to dispatch now that the stage is free, and why; ``None`` while nothing waits."""
        if not queued_rows:
            return None
        if queued_rows >= self.max_rows:
            return self.max_rows, Flush.FULL
        return queued_rows, Flush.FREE


class Batcher:
    """Rows that wait for one stage, first in first out."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._parts: deque[MicroBatch] = deque()
        self._rows = 0

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self._rows

    def put(self, batch: MicroBatch) -> None:
        """Queue rows; what bounds them is the worker's budget, see `streamml.engine.backpressure`."""
        if len(batch):
            self._parts.append(batch)
            self._rows += len(batch)

    def take(self) -> tuple[MicroBatch, Flush] | None:
        """The next batch, or ``None`` while nothing waits."""
        decision = self._policy.decide(self._rows)
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
        self._rows -= len(batch)
        return batch, reason

    def drop(self, slots: set[int]) -> None:
        """Forget the rows of these slots."""
        closed = list(slots)
        kept = (part.take(~np.isin(part.origin.slot, closed)) for part in self._parts)
        self._parts = deque(part for part in kept if len(part))
        self._rows = sum(len(part) for part in self._parts)
