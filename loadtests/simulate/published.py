"""Batch policies of others. Each gets the times of arrivals and answers with latencies, infinite for events it gave up."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from loadtests.simulate.arrivals import Times

FIXED_S, PER_ROW_S, BUDGET_S = 0.002, 0.00005, 0.020
NO_MOST = 10**9


def batch_s(rows: float) -> float:
    """What a batch takes."""
    return FIXED_S + PER_ROW_S * rows


def most_within(seconds: float) -> int:
    """Rows of the largest batch that takes at most so long."""
    return math.floor((seconds - FIXED_S) / PER_ROW_S + 1e-9)


# While one batch runs the next one waits, and its rows have waited for as long as that takes.
CAPACITY = most_within(BUDGET_S / 2)


def waiting(arrivals: Times, wait_s: float, most: int) -> Times:
    """A batch goes when it is full, or when its oldest row has waited for ``wait_s``; 0: when the model is free."""
    latencies, first, free = [], 0, 0.0
    while first < len(arrivals):
        full = arrivals[first + most - 1] if first + most <= len(arrivals) else math.inf
        start = max(free, min(full, arrivals[first] + wait_s))
        rows = min(int(np.searchsorted(arrivals, start, side="right")) - first, most)
        free = start + batch_s(rows)
        latencies.append(free - arrivals[first : first + rows])
        first += rows
    return np.concatenate(latencies)


def aimd(arrivals: Times) -> Times:
    """Clipper: no timer; the cap grows by one row after a batch that took less than the budget, else it shrinks by a tenth.

    Crankshaw et al., Clipper: A Low-Latency Online Prediction Serving System, NSDI 2017, section 4.3.
    """
    latencies, first, free, cap = [], 0, 0.0, 1.0
    while first < len(arrivals):
        start = max(free, arrivals[first])
        rows = min(int(np.searchsorted(arrivals, start, side="right")) - first, int(cap))
        free = start + batch_s(rows)
        latencies.append(free - arrivals[first : first + rows])
        first += rows
        cap = cap + 1.0 if batch_s(rows) <= BUDGET_S else max(1.0, cap * 0.9)
    return np.concatenate(latencies)


def bentoml(arrivals: Times) -> Times:
    """BentoML's `CorkDispatcher` after its training, which knows the cost of a batch here from the start.

    Every millisecond it gives up events, oldest first, until the rest as one batch would meet the deadline of its oldest.
    A batch goes when the model is free and waiting longer does not pay: rows × (time since the newest came + a tick + cost
    of a row) exceeds 0.95 of the newest row's average wait in the latest 50 batches, which is refreshed every 5 s.
    """
    tick, wait, refresh_at = 0.001, 0.01, 5.0
    latencies: list[Times] = []
    waits: deque[float] = deque(maxlen=50)
    first, now, free = 0, 0.0, 0.0
    while first < len(arrivals):
        now = max(now, arrivals[first])
        rows = int(np.searchsorted(arrivals, now, side="right")) - first
        given_up = 0
        while rows > 1 and now - arrivals[first] + batch_s(rows) >= BUDGET_S:
            first, rows, given_up = first + 1, rows - 1, given_up + 1
        latencies.append(np.full(given_up, math.inf))
        newest = now - arrivals[first + rows - 1]
        if now < free or rows * (newest + tick + PER_ROW_S) <= wait * 0.95:
            now += tick
            continue
        waits.append(newest)
        if now >= refresh_at:
            wait, refresh_at = sum(waits) / len(waits), now + 5.0
        free = now + batch_s(rows)
        latencies.append(free - arrivals[first : first + rows])
        first += rows
    return np.concatenate(latencies)


def set_aside(arrivals: Times) -> Times:
    """No timer, cap from capacity; rows that could not make it in the next batch are left out."""
    latencies, first, free = [], 0, 0.0
    while first < len(arrivals):
        start = max(free, arrivals[first])
        end = int(np.searchsorted(arrivals, start, side="right"))
        out = first
        while out < end and start - arrivals[out] + batch_s(min(end - out, CAPACITY)) > BUDGET_S:
            out += 1
        latencies.append(np.full(out - first, math.inf))
        rows = min(end - out, CAPACITY)
        first = out
        if rows:
            free = start + batch_s(rows)
            latencies.append(free - arrivals[first : first + rows])
            first += rows
    return np.concatenate(latencies)
