"""How many rows become a batch, and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from streamml.batch.microbatch import MicroBatch, Origin
from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.assignment import SlotNames
from streamml.engine.backpressure import Budget
from streamml.engine.batcher import BatchPolicy, Flush
from streamml.engine.engine import Engine
from streamml.engine.events import Action, Assigned, Polled, RunStage, StageDone, StageResult
from tests.property.test_engine import CONFIG
from tests.records import PARTITION, run_of

CHILDREN = 500


def engine(*stages: BatchPolicy) -> Engine:
    made = Engine(replace(CONFIG, stages=stages, budget=Budget(10_000, 10_000_000)), SlotNames())
    made.handle(Assigned({PARTITION: 0}), 0.0)
    return made


def exploded(batch: MicroBatch) -> MicroBatch:
    """Five hundred rows of each."""
    index = np.repeat(np.arange(len(batch)), CHILDREN)
    child = np.tile(np.arange(CHILDREN), len(batch))
    origin = batch.origin.take(index)
    whole = Origin(
        origin.slot, origin.ordinal, origin.offset, origin.timestamp, origin.flags, child, child == CHILDREN - 1
    )
    return MicroBatch(whole, {name: column[index] for name, column in batch.columns.items()})


def only(actions: list[Action], stage: int) -> RunStage | None:
    return next((one for one in actions if isinstance(one, RunStage) and one.stage == stage), None)


def test_b2_what_a_stage_makes_of_its_rows_is_bounded_by_what_the_next_one_takes() -> None:
    """B2.5."""
    made = engine(BatchPolicy(4096, explodes=True), BatchPolicy(1000))
    job = only(made.handle(Polled([run_of(list(range(5_000)))]), 1.0), 0)
    sizes: list[int] = []
    while job is not None:
        sizes.append(len(job.batch))
        # The second stage is busy with its first batch all the time.
        job = only(made.handle(StageDone(job.job, StageResult(exploded(job.batch))), 1.0), 0)
    assert sizes == [64]
    assert made.queued_rows()[1] <= 64 * CHILDREN

    made = engine(BatchPolicy(4096, explodes=True), BatchPolicy(100_000))
    job = only(made.handle(Polled([run_of(list(range(5_000)))]), 1.0), 0)
    sizes = []
    while job is not None:
        sizes.append(len(job.batch))
        job = only(made.handle(StageDone(job.job, StageResult(exploded(job.batch))), 1.0), 0)
    # As many rows as make one batch of rows.
    assert sizes[:3] == [64, 4096 // CHILDREN, 4096 // CHILDREN]
    assert made.queued_rows()[1] < 2 * 100_000 + 4096


def test_b2_what_a_stage_makes_of_its_rows_is_bounded_in_bytes() -> None:
    """B2.5."""
    wide = np.zeros((4096, 1000), np.float64)
    made = engine(BatchPolicy(4096), BatchPolicy(100_000))
    job = only(made.handle(Polled([run_of(list(range(100)))]), 1.0), 0)
    made.handle(Polled([run_of(list(range(100, 5_000)))]), 1.0)
    sizes: list[int] = []
    while job is not None:
        sizes.append(len(job.batch))
        # The second stage is busy with its first batch all the time.
        result = job.batch.only(frozenset()).with_columns({"wide": wide[: len(job.batch)]})
        job = only(made.handle(StageDone(job.job, StageResult(result, size_bytes=result.size_bytes())), 1.0), 0)
    # The first batch shows that a row is 8,000 bytes; the next one is as large as the budget has room for, and the stage rests.
    assert sizes == [100, 10_000_000 // 8_000]


def test_m1_m4_a_free_stage_takes_what_waits_and_every_batch_has_its_reason() -> None:
    """M1.1, M4.1."""
    made = engine(BatchPolicy(8))
    first = only(made.handle(Polled([run_of(list(range(3)))]), 1.0), 0)
    assert first is not None
    assert len(first.batch) == 3
    made.handle(Polled([run_of(list(range(3, 15)))]), 1.0)
    done = StageDone(first.job, StageResult(first.batch.take(slice(0, 0)), [_filtered(first.batch)]))
    second = only(made.handle(done, 1.0), 0)
    assert second is not None
    assert len(second.batch) == 8
    assert made.statistics.flushes == {(0, Flush.FREE): 1, (0, Flush.FULL): 1}


def _filtered(batch: MicroBatch) -> Outcomes:
    return Outcomes(Kind.FILTERED, batch.origin)


def test_b2_the_first_batch_of_a_stage_that_explodes_is_no_larger_than_its_largest() -> None:
    job = only(engine(BatchPolicy(3, explodes=True)).handle(Polled([run_of(list(range(50)))]), 1.0), 0)
    assert job is not None
    assert len(job.batch) == 3
