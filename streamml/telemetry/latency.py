"""A histogram of latencies that takes whole columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_LOWEST_MS: Final = 0.1
_STEPS_PER_E: Final = 20
_BINS: Final = 500


@dataclass(slots=True)
class LatencyHistogram:
    """Counts in logarithmic bins, each 5 % wide, from 0.1 ms to three months; so a percentile is at most 5 % off.

    Libraries for this (HDR histogram, DDSketch) take one value per call.
    """

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    sum_ms: float = 0.0

    def add(self, latencies_ms: npt.NDArray[Any]) -> None:
        """Count a column of latencies; what is below 0.1 ms, or negative by clocks that differ, counts as 0.1 ms."""
        positive = np.maximum(latencies_ms, _LOWEST_MS)
        bins = (np.log(positive / _LOWEST_MS) * _STEPS_PER_E).astype(np.int64)
        self.counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)
        self.sum_ms += float(positive.sum())

    def merge(self, counts: Sequence[int]) -> None:
        """Add the counts of another histogram."""
        self.counts += np.asarray(counts, np.int64)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def percentile(self, share: float) -> float | None:
        """Latency in ms that ``share`` (0 to 1) of the rows do not exceed; ``None`` while there are no rows."""
        if not self.total:
            return None
        bin = int(np.searchsorted(np.cumsum(self.counts), share * self.total))
        return round(float(_LOWEST_MS * np.exp((bin + 0.5) / _STEPS_PER_E)), 2)

    def at_most(self, bound_ms: float) -> int:
        """Rows whose latency is at most ``bound_ms``, as exact as the bins are."""
        last = int(np.floor(np.log(max(bound_ms, _LOWEST_MS) / _LOWEST_MS) * _STEPS_PER_E))
        return int(self.counts[: min(last, _BINS)].sum())
