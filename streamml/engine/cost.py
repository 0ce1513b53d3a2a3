"""What a batch of a number of rows costs, learned from batches that ran."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_QUANTILE: Final = 0.9
_STEP: Final = 0.02
_SETTLING: Final = 20
_NEARLY_BEST: Final = 0.98
_SHORTEST_S: Final = 1e-6
# What logarithms lose there and back.
_NEARLY_THE_SAME: Final = 1.0 + 1e-9


def ladder(max_rows: int) -> list[int]:
    """Sizes at which a cost is kept, and which a warm-up measures: the powers of two below ``max_rows``, and ``max_rows``."""
    return [2**power for power in range((max_rows - 1).bit_length())] + [max_rows]


class CostModel:
    """Seconds by rows, never falling as rows grow, straight between the sizes of a ladder. No shape is assumed beyond that.

    Each size keeps a running 0.9-quantile: a measurement above it moves it up by 1.8 %, one below moves it down by 0.2 %
    (Robbins and Monro's stochastic approximation, in logarithms). The first 20 measurements of a size are averaged instead.
    Sizes that never ran move with their neighbours. Sizes that contradict each other, a larger one being cheaper, are pooled
    (isotonic regression by the pool-adjacent-violators algorithm).
    """

    def __init__(
        self, max_rows: int, measured: Mapping[int, float] | None = None, rungs: Sequence[int] | None = None
    ) -> None:
        """
        Args:
            max_rows: most rows of a batch, at least 1.
            measured: seconds by rows from a warm-up; it gives the shape until real batches have run.
            rungs: the only sizes that the model runs at, ascending; a batch costs what the next one above it does.
        """
        self._sizes = np.array(rungs or ladder(max_rows), np.float64)
        self._padded = bool(rungs)
        self._logs = np.zeros(len(self._sizes))
        self._counts = np.zeros(len(self._sizes), np.int64)
        self._curve = np.zeros(len(self._sizes))
        self.known = False
        """Whether anything was measured; until then nothing costs anything."""
        if measured:
            rows = sorted(measured)
            self._begin(np.interp(self._sizes, rows, [measured[size] for size in rows]))
            beyond = self._sizes > rows[-1]
            self._logs[beyond] += np.log(self._sizes[beyond] / rows[-1])
            self._fit()

    def seconds(self, rows: int) -> float:
        """What a batch of ``rows`` rows takes, as far as is known."""
        return float(np.interp(self._runs_as(rows), self._sizes, self._curve))

    def most_within(self, seconds: Floats | float) -> Floats:
        """The most rows that take at most so long, for each of ``seconds``; 0 where one row takes longer already."""
        if not self.known:
            return np.where(np.asarray(seconds) > 0, self._sizes[-1], 0.0)
        if self._padded:
            places = np.searchsorted(self._curve, np.asarray(seconds) * _NEARLY_THE_SAME, side="right")
            fitting: Floats = np.concatenate([[0.0], self._sizes])[places]
            return fitting
        found: Floats = np.interp(np.asarray(seconds), self._curve, self._sizes, left=0.0)
        # The tolerance is for what straight lines lose there and back.
        rows: Floats = np.floor(found + 1e-6)
        return rows

    def least_padding(self, rows: int) -> int:
        """``rows``, or the largest rung below where running that many and then the rest takes less time than padding them all."""
        place = int(np.searchsorted(self._sizes, rows))
        if not self._padded or not self.known or place in (0, len(self._sizes)) or self._sizes[place] == rows:
            return rows
        below = int(self._sizes[place - 1])
        return below if self.seconds(below) + self.seconds(rows - below) < self.seconds(rows) else rows

    @property
    def knee(self) -> int:
        """The smallest size with nearly the best throughput, at least 0.98 of it."""
        if not self.known:
            return int(self._sizes[-1])
        return self.keeps_up(_NEARLY_BEST * float(self._throughput().max()))

    def keeps_up(self, rows_per_s: float) -> int:
        """The smallest size of the ladder whose throughput is at least ``rows_per_s``; the knee where no size's is."""
        if not self.known:
            return 1
        enough = self._throughput() >= rows_per_s
        return int(self._sizes[enough.argmax()]) if enough.any() else self.knee

    def learn(self, rows: int, seconds: float) -> None:
        """A batch of ``rows`` rows took ``seconds``."""
        rows, seconds = self._runs_as(rows), max(seconds, _SHORTEST_S)
        if not self.known:
            # As if the number of rows did not matter: what is thought too cheap is tried and learned, what is thought too dear is not.
            self._begin(np.full(len(self._sizes), seconds))
        upper = min(int(np.searchsorted(self._sizes, rows)), len(self._sizes) - 1)
        lower = upper if self._padded else max(0, upper - 1)
        width = self._sizes[upper] - self._sizes[lower]
        share = 1.0 if not width else (rows - self._sizes[lower]) / width
        expected = np.interp(rows, self._sizes, np.exp(self._logs))
        off = math.log(seconds / float(expected))
        moves = self._moves(off)
        follow = share * moves[upper] + (1.0 - share) * moves[lower]
        self._logs[self._never_ran(lower, upper)] += follow
        for size, weight in ((upper, share), (lower, 1.0 - share)):
            if weight > 0.0:
                self._logs[size] += weight * moves[size] if self._counts[size] else 0.0
                self._counts[size] += 1
        self._fit()

    def _runs_as(self, rows: int) -> int:
        """The rows that the model sees of a batch of ``rows``."""
        if not self._padded:
            return rows
        return int(self._sizes[min(int(np.searchsorted(self._sizes, rows)), len(self._sizes) - 1)])

    def _begin(self, seconds: Floats) -> None:
        self._logs = np.log(np.maximum(seconds, _SHORTEST_S))
        self.known = True

    def _never_ran(self, lower: int, upper: int) -> npt.NDArray[np.intp]:
        """Places of sizes that never ran and have these for their nearest neighbours that did."""
        ran = np.flatnonzero(self._counts)
        start = int(ran[ran < lower].max(initial=-1)) + 1
        end = int(ran[ran > upper].min(initial=len(self._counts)))
        return start + np.flatnonzero(self._counts[start:end] == 0)

    def _moves(self, off: float) -> Floats:
        """By how much each size's logarithm moves for a measurement that is off by ``off``."""
        step = _STEP * (_QUANTILE if off > 0 else _QUANTILE - 1.0)
        return np.where(self._counts < _SETTLING, off / (self._counts + 1.0), step)

    def _throughput(self) -> Floats:
        return self._sizes / self._curve

    def _fit(self) -> None:
        self._curve = np.array(_never_falling(np.exp(self._logs).tolist()))


def _never_falling(values: list[float]) -> list[float]:
    """The closest row of numbers that never falls: neighbours that do are replaced by their mean, again and again."""
    pools: list[tuple[float, int]] = []
    for value in values:
        total, count = value, 1
        while pools and pools[-1][0] * count > total * pools[-1][1]:
            before, many = pools.pop()
            total, count = total + before, count + many
        pools.append((total, count))
    return [total / count for total, count in pools for _ in range(count)]
