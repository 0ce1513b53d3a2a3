"""Measures what a worker does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamml.batch.column import concatenate
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import Int
from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.events import Settled, StageResult
from streamml.ports.feature_store import NearCacheUse
from streamml.stages.guard import Guard
from streamml.telemetry.latency import LatencyHistogram


@dataclass(slots=True)
class StepCost:
    """What one step has cost so far."""

    batches: int = 0
    rows: int = 0
    seconds: float = 0.0
    too_large: int = 0


@dataclass(slots=True)
class Observer:
    """Sums since the start, of what has settled as of the latest `tally`. Written by the worker's own thread; others may read at
    any time.

    Args:
        latency: record time to acknowledgement by the broker, of predictions.
        steps: cost by name of the step.
        flags: predictions by flag, ``route@v7:missing`` for example.
        dead_letters: rows by step and error.
        guards: the breakers before what the worker depends on.
        near_caches: tells what the near caches of feature sets have done.
    """

    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    steps: dict[str, StepCost] = field(default_factory=dict)
    flags: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[tuple[str, str]] = field(default_factory=Counter)
    guards: list[Guard] = field(default_factory=list)
    near_caches: Callable[[], Sequence[NearCacheUse]] = tuple
    _settled: list[tuple[float, tuple[Outcomes, ...]]] = field(default_factory=list, repr=False)

    def settled(self, settled: Settled, now: float) -> None:
        """Rows reached their end; ``now`` in seconds since 1970. The next `tally` counts them."""
        self._settled.append((now * 1000.0, settled.outcomes))

    def tally(self) -> None:
        """Count what has settled since the last time: of many small batches at once, as each costs as much as all of them."""
        settled, self._settled = self._settled, []
        blocks = [(at_ms, block) for at_ms, outcomes in settled for block in outcomes]
        predictions = [(at_ms, block.origin) for at_ms, block in blocks if block.kind is Kind.PREDICTION]
        if predictions:
            self.latency.add(concatenate([at_ms - origin.timestamp for at_ms, origin in predictions]))
            self._count_flags(concatenate([origin.flags for _, origin in predictions]))
        for _, block in blocks:
            if block.kind is Kind.DEAD_LETTER and block.values is not None:
                self.dead_letters.update((failure.step, failure.error) for failure in block.values)

    def staged(self, result: StageResult) -> None:
        """A stage finished a batch."""
        for timing in result.timings:
            cost = self.steps.get(timing.step) or self.steps.setdefault(timing.step, StepCost())
            cost.batches += 1
            cost.rows += timing.rows
            cost.seconds += timing.seconds
            cost.too_large = timing.too_large

    def _count_flags(self, flags: Int) -> None:
        counts = np.bincount(flags)
        for code in counts.nonzero()[0].tolist():
            for flag in filter(None, FLAGS.text(code).split(",")):
                self.flags[flag] += int(counts[code])
