"""What a worker says of itself, counted of many batches at once."""

from __future__ import annotations

import numpy as np

from streamml.batch.column import object_array
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import Int, Origin
from streamml.batch.outcome import Failure, Kind, Outcomes, dead_letters
from streamml.engine.events import Settled
from streamml.telemetry.observer import Observer

FRESH, STALE = FLAGS.code("route@v1"), FLAGS.code("route@v1:stale")


def origin(timestamps: list[int], flags: list[int]) -> Origin:
    nothing: Int = np.zeros(len(timestamps), np.int64)
    return Origin(nothing, nothing, nothing, np.array(timestamps), np.array(flags))


def predictions(timestamps: list[int], flags: list[int]) -> Outcomes:
    return Outcomes(Kind.PREDICTION, origin(timestamps, flags), object_array([b""] * len(flags), len(flags)))


def test_rows_are_counted_once_each_with_the_time_at_which_they_settled() -> None:
    observer = Observer()
    failed = dead_letters(origin([0], [0]), [Failure("score", "StepFailed", "It failed.")])
    observer.settled(Settled((predictions([9_990, 9_900], [FRESH, STALE]), failed)), 10.0)
    observer.settled(Settled((Outcomes(Kind.FILTERED, origin([0], [0])),)), 10.5)
    observer.settled(Settled((predictions([10_000], [FRESH]),)), 11.0)
    for _ in range(2):
        observer.tally()
        assert observer.latency.total == 3
        assert observer.latency.sum_ms == 10.0 + 100.0 + 1000.0
        assert [observer.latency.at_most(bound) for bound in (12.0, 120.0, 1200.0)] == [1, 2, 3]
        assert observer.flags == {"route@v1": 2, "route@v1:stale": 1}
        assert observer.dead_letters == {("score", "StepFailed"): 1}
