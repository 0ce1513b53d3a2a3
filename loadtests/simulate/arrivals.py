"""When events come in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]

SECONDS = 20.0
PEAK = 2.4
SHARE = 0.2
BURST_S = 0.15


def poisson(rate: float, seed: int) -> Times:
    """Times in seconds, ascending, of 20 s at ``rate`` per second."""
    random = np.random.default_rng(seed)
    return np.sort(random.random(random.poisson(rate * SECONDS)) * SECONDS)


def bursty(rate: float, seed: int) -> Times:
    """As `poisson`, in bursts of 2.4 times ``rate`` that last 0.15 s and make up 20 % of the time.

    Between them events come at such a rate that the mean is ``rate``. Lengths of bursts and pauses are exponential.
    """
    random = np.random.default_rng(seed)
    pieces = [
        start + np.sort(random.random(random.poisson(now * (end - start)))) * (end - start)
        for start, end, now in _phases(rate, random)
    ]
    return np.concatenate(pieces)


def _phases(rate: float, random: np.random.Generator) -> Iterator[tuple[float, float, float]]:
    low = rate * (1.0 - SHARE * PEAK) / (1.0 - SHARE)
    start, burst = 0.0, False
    while start < SECONDS:
        mean = BURST_S if burst else BURST_S * (1.0 - SHARE) / SHARE
        end = min(start + random.exponential(mean), SECONDS)
        yield start, end, rate * PEAK if burst else low
        start, burst = end, not burst
