"""Which batches of a stage run where they are asked for, and from when on the stage has its thread."""

from __future__ import annotations

import queue
from collections.abc import Sequence

import numpy as np
import pytest

from streamml.batch.microbatch import Int, MicroBatch, Origin
from streamml.clock import SystemClock
from streamml.engine.events import RunStage, StageFailed, StageResult, StepTiming
from streamml.errors import TransientError
from streamml.runtime.lane import Lane
from streamml.runtime.pulse import Pulse
from streamml.stages.stage import Stage

QUICK, WAITS, WAITS_AND_WORKS = (0.001, 0.0), (0.006, 0.005), (0.006, 0.007)
WORKS, LONG = (0.0, 0.199), (0.1, 0.101)
FAILS = (0.0, 0.0)


class Takes(Stage):
    """Takes so many seconds outside of Python's lock, and so many inside, as far as it tells."""

    def __init__(self) -> None:
        super().__init__([])
        self.seconds = QUICK

    def run(self, *args: object, **kwargs: object) -> StageResult:
        if self.seconds == FAILS:
            raise TransientError("The store does not answer.")
        outside, inside = self.seconds
        timings = [StepTiming("lookup", 1, outside, True), StepTiming("decode", 1, inside, False)]
        return StageResult(EMPTY, timings=timings)


NONE: Int = np.zeros(0, np.int64)
EMPTY = MicroBatch(Origin(NONE, NONE, NONE, NONE, NONE), {})


@pytest.mark.parametrize(
    ("batches", "quick"),
    [
        ([], False),
        ([WAITS], False),
        ([QUICK], True),
        ([QUICK, WAITS, WAITS], True),
        ([QUICK, WAITS, WAITS, WAITS], False),
        ([QUICK, WAITS, WAITS, QUICK, WAITS, WAITS], True),
        ([QUICK, WAITS, WAITS, WAITS, WAITS, QUICK], True),
        ([QUICK, *3 * [WAITS_AND_WORKS]], True),
        ([QUICK, *3 * [WORKS]], True),
        ([QUICK, LONG], False),
        ([QUICK, LONG, WAITS], False),
        ([QUICK, FAILS], False),
        ([QUICK, FAILS, WAITS], False),
    ],
)
def test_a_stage_is_quick_until_waits_in_a_row_or_a_long_batch_say_otherwise(
    batches: Sequence[tuple[float, float]], quick: bool
) -> None:
    stage = Takes()
    lane = Lane("lane", stage, SystemClock(), queue.SimpleQueue(), Pulse())
    try:
        for number, seconds in enumerate(batches):
            stage.seconds = seconds
            assert isinstance(lane.answer(RunStage(number, 0, EMPTY)), StageFailed) == (seconds == FAILS)
        assert lane.quick is quick
    finally:
        lane.stop()
