"""When the rows that wait for a stage become a batch, and how many of them."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np

from streamml.batch.microbatch import MicroBatch
from streamml.engine.cost import CostModel
from streamml.engine.deadline import ArrivalRate, LatencyBudget, hopeless
from streamml.engine.row_queue import RowQueue


class Flush(enum.Enum):
    """Why a batch was dispatched (promise M4)."""

    FREE = "free"
    """The stage was free; the batch is what was queued."""
    FULL = "full"
    """The stage was free and at least a whole batch was queued."""
    BUDGET = "budget"
    """More was queued than can be done before the deadline of its oldest row; the batch is what can."""
    CATCH_UP = "catch_up"
    """The oldest row cannot make it, or only with a batch too small to keep up; the batch is one of best throughput."""
    RUNG = "rung"
    """All could be done in time, but only so many need little padding; the others are the next batch."""
    ASIDE = "aside"
    """There are rows in it that had been set aside, as what else waited left room."""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Size of a batch as a function of what waits. No timer: a free stage takes what is queued (promise M1).

    Args:
        max_rows: most rows of a batch.
        explodes: whether the stage makes many rows of one; then its first batch is small, as nobody knows how many.
        budget: how old rows may get; ``None``: as old as they do.
        rungs: the only sizes that the model runs at, ascending; a batch is padded to the next. Empty: any size.
    """

    max_rows: int
    explodes: bool = False
    budget: LatencyBudget | None = None
    rungs: tuple[int, ...] = ()

    def decide(
        self,
        queued_rows: int,
        growth: float = 1.0,
        cost: CostModel | None = None,
        left_s: float = math.inf,
        rows_per_s: float = 0.0,
    ) -> tuple[int, Flush] | None:
        """Rows to dispatch now that the stage is free, and why; ``None`` while nothing waits.

        Args:
            growth: rows that the stage makes of one; a batch is so small that it makes ``max_rows`` of them (promise B2).
            cost: what batches take; ``None``: nothing depends on it.
            left_s: seconds until the earliest deadline of these rows; infinite where there is no budget.
            rows_per_s: how fast rows arrive.
        """
        if not queued_rows:
            return None
        most = max(1, int(self.max_rows / growth))
        wanted, reason = (queued_rows, Flush.FREE)
        if cost is not None:
            wanted, reason = _within(queued_rows, cost, left_s, rows_per_s)
        return (most, Flush.FULL) if wanted >= most else (wanted, reason)


def _within(queued_rows: int, cost: CostModel, left_s: float, rows_per_s: float) -> tuple[int, Flush]:
    fit = int(cost.most_within(left_s))
    if fit >= queued_rows:
        rows = cost.least_padding(queued_rows)
        return rows, Flush.FREE if rows == queued_rows else Flush.RUNG
    if fit >= cost.keeps_up(rows_per_s):
        return fit, Flush.BUDGET
    return cost.least_padding(min(queued_rows, cost.knee)), Flush.CATCH_UP


class Batcher:
    """Rows that wait for one stage, first in first out but for those that are set aside."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._budget = policy.budget
        self._cost = (
            CostModel(policy.max_rows, policy.budget.measured if policy.budget else None, policy.rungs)
            if policy.budget or policy.rungs
            else None
        )
        self._queue = RowQueue()
        self._aside = RowQueue()
        self._arrivals = ArrivalRate()
        self._in_time_at = 0.0
        self._size_bytes = 0.0

    @property
    def size_bytes(self) -> float:
        """Bytes of these rows, as far as they were told, shared out evenly among them."""
        return self._size_bytes

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self._queue.rows + self._aside.rows

    def put(self, batch: MicroBatch, size_bytes: int = 0) -> None:
        """Queue rows, of so many bytes beyond what the worker's budget counts already.

        What bounds them is that budget (`streamml.engine.backpressure`), and for rows that a stage has made of others, that
        it rests while more than two batches, or more bytes than the budget, wait after it.
        """
        self._queue.put(batch)
        self._arrivals.count(len(batch))
        self._size_bytes += size_bytes if len(batch) else 0

    def learn(self, rows: int, seconds: float) -> None:
        """A batch of this stage took so long."""
        if self._cost is not None:
            self._cost.learn(rows, seconds)

    def expired(self, now: float) -> MicroBatch | None:
        """Take out the rows that are to become dead letters because they cannot make it; for when the stage is free."""
        if self._budget is None or self._budget.on_late != "dead_letter":
            return None
        before = self.rows
        late = self._out_of_time(now)
        self._shrink(before)
        return late

    def take(self, now: float, growth: float = 1.0) -> tuple[MicroBatch, Flush] | None:
        """The next batch, or ``None`` while nothing waits.

        Args:
            now: in seconds since 1970.
            growth: as in `BatchPolicy.decide`.
        """
        before = self.rows
        if self._budget is not None and self._budget.on_late == "last":
            self._set_aside(now)
        rows, reason = self._decide(now, growth) or (0, Flush.ASIDE)
        late = self._room_for_late(now, growth, rows) if self._aside.rows else 0
        if late:
            waiting = [self._queue.take(rows)] if rows else []
            batch, reason = MicroBatch.join([*waiting, self._aside.take(late)]), Flush.ASIDE
        elif rows:
            batch = self._queue.take(rows)
        else:
            return None
        self._shrink(before)
        return batch, reason

    def drop(self, slots: set[int]) -> None:
        """Forget the rows of these slots."""
        before = self.rows
        for queue in (self._queue, self._aside):
            queue.drop(slots)
        self._shrink(before)

    def _decide(self, now: float, growth: float) -> tuple[int, Flush] | None:
        rows = self._queue.rows
        if self._cost is None or not rows:
            return self._policy.decide(rows, growth)
        left_s = math.inf if self._budget is None else self._earliest_left(self._budget, now)
        return self._policy.decide(rows, growth, self._cost, left_s, self._arrivals.per_second(now))

    def _room_for_late(self, now: float, growth: float, rows: int) -> int:
        """How many rows set aside fill up a batch of ``rows``."""
        most = max(1, int(self._policy.max_rows / growth))
        return max(0, min(self._aside.rows, self._room(now, most) - rows))

    def _room(self, now: float, most: int) -> int:
        """Rows of the largest batch that keeps no row from making it, when it is filled up with rows set aside.

        What comes while it runs needs as long again; unless nothing in time has come for as long as the largest would take.
        """
        assert self._budget is not None
        assert self._cost is not None
        if now - self._in_time_at > self._cost.seconds(self._cost.knee):
            return min(most, self._cost.knee)
        half = self._budget.seconds / 2
        left_s = self._earliest_left(self._budget, now) if self._queue.rows else half
        fits = int(self._cost.most_within(min(half, left_s)))
        return min(most, fits if self._queue.rows else max(1, fits))

    def _set_aside(self, now: float) -> None:
        late = self._out_of_time(now)
        if late is not None:
            self._aside.put(late)
        if self._queue.rows:
            self._in_time_at = now

    def _out_of_time(self, now: float) -> MicroBatch | None:
        """Take the rows out of the queue that cannot make it."""
        if self._budget is None or self._cost is None or not self._queue.rows:
            return None
        rows = self._queue.rows
        if self._cost.most_within(self._earliest_left(self._budget, now)) >= rows:
            return None
        waiting = self._queue.take(rows)
        out = hopeless(self._budget.left(waiting, now), self._cost, self._arrivals.per_second(now))
        stay = np.ones(rows, np.bool_)
        stay[out] = False
        self._queue.put(waiting.take(stay))
        return waiting.take(out) if len(out) else None

    def _earliest_left(self, budget: LatencyBudget, now: float) -> float:
        return self._queue.earliest(budget.born) / 1000.0 - now + budget.seconds

    def _shrink(self, rows_before: int) -> None:
        self._size_bytes *= self.rows / rows_before if rows_before else 0.0
