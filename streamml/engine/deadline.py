"""A latency budget, and which rows can keep to it (promise M2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from streamml.batch.microbatch import Int, MicroBatch
from streamml.batch.outcome import Failure, Outcomes, dead_letters
from streamml.engine.cost import CostModel, Floats
from streamml.engine.row_queue import times

_RATE_OVER_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class LatencyBudget:
    """How old a row may be when its stage is done with it.

    Args:
        seconds: from the row's time on.
        born: column of the row's time; ``None``: the record's timestamp.
        on_late: what happens to a row that cannot make it: it is scored in its turn, scored when no other row waits, or
            becomes a dead letter.
        step, model: the step that has the budget, and ``name@version`` of its model; for dead letters.
        measured: seconds that a batch takes, by rows, from a warm-up.
    """

    seconds: float
    born: str | None = None
    on_late: Literal["score", "last", "dead_letter"] = "score"
    step: str = ""
    model: str = ""
    measured: Mapping[int, float] = field(default_factory=dict)

    def left(self, batch: MicroBatch, now: float) -> Floats:
        """Seconds that each row has left; float64 ``[n]``, negative for one whose time is over."""
        left: Floats = times(batch, self.born) / 1000.0 - now + self.seconds
        return left

    def letters(self, rows: MicroBatch) -> Outcomes:
        """Dead letters of rows that cannot make it."""
        said = f"No prediction could be made within the latency budget of {self.seconds * 1000:g} ms."
        failure = Failure(self.step, "DeadlineExceeded", said, self.model)
        return dead_letters(rows.origin, [failure] * len(rows))


def hopeless(left: Floats, cost: CostModel, rows_per_s: float) -> Int:
    """Which rows not to run now, so that the others make it; indices, ascending.

    From the oldest on, rows are left out until the batch that still meets the deadline of the oldest one that remains is
    all that remains, or large enough to keep up with ``rows_per_s``. Where no batch at all meets a deadline, only those are
    left out whose time is over: the others run, or it would never be known that they could make it again.

    Args:
        left: seconds that each row has left, float64 ``[n]``, in any order.
    """
    order = np.argsort(left, kind="stable")
    remaining = np.arange(len(left), 0, -1)
    good = cost.most_within(left[order]) >= np.minimum(remaining, cost.keeps_up(rows_per_s))
    out = int(good.argmax()) if good.any() else int(np.count_nonzero(left <= 0))
    return np.sort(order[:out])


class ArrivalRate:
    """Rows per second, those of the latest 50 ms counting most."""

    def __init__(self) -> None:
        self._rows = 0
        self._rate = 0.0
        self._at = 0.0

    def count(self, rows: int) -> None:
        self._rows += rows

    def per_second(self, now: float) -> float:
        """The rate as of ``now``, in seconds since 1970."""
        passed = now - self._at
        if passed > 0:
            weight = 1.0 - math.exp(-passed / _RATE_OVER_S)
            self._rate += weight * (self._rows / passed - self._rate)
            self._rows, self._at = 0, now
        return self._rate
