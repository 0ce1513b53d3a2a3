"""The worker's own `Batcher` in virtual time: the code that runs in a worker, with arrivals for polls."""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal

import numpy as np

from loadtests.simulate.arrivals import Times
from loadtests.simulate.published import BUDGET_S, batch_s
from streamml.batch.microbatch import MicroBatch, Origin
from streamml.engine.batcher import Batcher, BatchPolicy
from streamml.engine.cost import ladder
from streamml.engine.deadline import LatencyBudget

MOST_ROWS = 4096
# Record timestamps are ms since 1970; those of the first events of a day are as good as any.
_START_S = 1_700_000_000.0


def simulate(arrivals: Times, on_late: Literal["score", "last", "dead_letter"]) -> tuple[Times, Counter[str]]:
    """Latencies in order of arrival, infinite for dead letters; and the number of batches by reason.

    The cost is known from a warm-up, and what batches take is learned, as in a worker.
    """
    measured = {rows: batch_s(rows) for rows in ladder(MOST_ROWS)}
    budget = LatencyBudget(BUDGET_S, on_late=on_late, measured=measured)
    batcher = Batcher(BatchPolicy(MOST_ROWS, budget=budget))
    latencies, reasons = np.full(len(arrivals), math.inf), Counter[str]()
    polled, now = 0, 0.0
    while polled < len(arrivals) or batcher.rows:
        if not batcher.rows:
            now = max(now, arrivals[polled])
        here = int(np.searchsorted(arrivals, now, side="right"))
        batcher.put(_rows(arrivals, polled, here))
        polled = here
        batcher.expired(_START_S + now)
        taken = batcher.take(_START_S + now)
        if taken is None:
            continue
        batch, reason = taken
        took = batch_s(len(batch))
        now += took
        batcher.learn(len(batch), took)
        reasons[reason.value] += 1
        latencies[batch.origin.ordinal] = now - arrivals[batch.origin.ordinal]
    return latencies, reasons


def _rows(arrivals: Times, start: int, end: int) -> MicroBatch:
    numbers = np.arange(start, end)
    zeros = np.zeros(len(numbers), np.int64)
    stamps = np.floor((_START_S + arrivals[start:end]) * 1000.0).astype(np.int64)
    return MicroBatch(Origin(zeros, numbers, numbers, stamps, zeros), {})


def catch_up_s(outage_s: float, rate: float, on_late: Literal["score", "last"]) -> float:
    """Seconds from the end of an outage until nothing is late, with events every 1 / ``rate`` s from its beginning on.

    As a worker polls, so the batcher has at most 16,384 rows at a time; the others are on the topic.
    """
    budget = LatencyBudget(BUDGET_S, on_late=on_late, measured={rows: batch_s(rows) for rows in ladder(MOST_ROWS)})
    batcher = Batcher(BatchPolicy(MOST_ROWS, budget=budget))
    polled, now = 0, outage_s
    while True:
        here = min(int(now * rate), polled + 4 * MOST_ROWS - batcher.rows)
        batcher.put(_rows(np.arange(polled, here) / rate, 0, here - polled))
        polled = here
        taken = batcher.take(_START_S + now)
        assert taken is not None
        batch, _ = taken
        now += batch_s(len(batch))
        batcher.learn(len(batch), batch_s(len(batch)))
        if now - (batch.origin.timestamp.min() / 1000.0 - _START_S) <= BUDGET_S:
            return now - outage_s
