"""Measures what a worker does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamml.batch.column import concatenate
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import Int, Origin
from streamml.batch.outcome import Kind
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
    """Sums since the start. Written by the worker's own thread; others may read at any time.

    Args:
        latency: record time to acknowledgement by the broker, of predictions; as of the latest `tally`.
        steps: cost by name of the step.
        flags: predictions by flag, ``route@v7:missing`` for example; as of the latest `tally`.
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
    _unmeasured: list[tuple[float, Origin]] = field(default_factory=list, repr=False)

    def settled(self, settled: Settled, now: float) -> None:
        """Rows reached their end; ``now`` in seconds since 1970. Predictions are measured by the next `tally`."""
        for block in settled.outcomes:
            if block.kind is Kind.PREDICTION:
                self._unmeasured.append((now * 1000.0, block.origin))
            elif block.kind is Kind.DEAD_LETTER and block.values is not None:
                self.dead_letters.update((failure.step, failure.error) for failure in block.values)

    def tally(self) -> None:
        """Measure the predictions since the last time: many small batches at once cost as much as one."""
        predictions, self._unmeasured = self._unmeasured, []
        if predictions:
            self.latency.add(concatenate([at_ms - origin.timestamp for at_ms, origin in predictions]))
            self._count_flags(concatenate([origin.flags for _, origin in predictions]))

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
