"""What goes out together: a whole batch where it is next in each of its partitions, the part of a partition where it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from streamml.batch.microbatch import MicroBatch
from streamml.batch.outcome import Outcomes
from streamml.engine.assignment import SlotNames
from streamml.engine.backpressure import Budget
from streamml.engine.batcher import BatchPolicy
from streamml.engine.dead_letters import DeadLetterLimit
from streamml.engine.engine import Engine, EngineConfig
from streamml.engine.events import Action, Assigned, Lost, Polled, RunStage, Send, Settled, StageDone, StageResult
from streamml.ports.sink import Delivered, Refusal
from streamml.ports.source import TopicPartition
from tests.records import letters_of, predictions_of, run_of

FIRST, SECOND = TopicPartition("events", 0), TopicPartition("events", 1)
Place = tuple[int, int]


def started(max_outbound_rows: int = 100) -> tuple[Engine, RunStage]:
    """An engine of one stage, and its first batch: two records of each partition."""
    config = EngineConfig(
        stages=(BatchPolicy(4),),
        prediction_topic="predictions",
        dead_letter_topic="dlq",
        dead_letter_limit=DeadLetterLimit(1.0, 10**9),
        budget=Budget(rows=40, size_bytes=10_000),
        max_outbound_rows=max_outbound_rows,
    )
    engine = Engine(config, SlotNames())
    engine.handle(Assigned({FIRST: 0, SECOND: 0}), 0.0)
    [job] = jobs(engine.handle(two_of_each(0), 1.0))
    return engine, job


def two_of_each(start: int) -> Polled:
    return Polled([run_of([start, start + 1], partition) for partition in (SECOND, FIRST)])


def jobs(actions: list[Action]) -> list[RunStage]:
    return [one for one in actions if isinstance(one, RunStage)]


def scored(job: RunStage, *outcomes: Outcomes) -> StageDone:
    nothing: MicroBatch = job.batch.take(slice(0, 0))
    return StageDone(job.job, StageResult(nothing, outcomes or [predictions_of(job.batch)]))


def sent(actions: list[Action]) -> list[list[Place]]:
    """Slot and offset of all rows, block by block."""
    return [
        list(zip(block.origin.slot.tolist(), block.origin.offset.tolist(), strict=True))
        for action in actions
        if isinstance(action, Send)
        for block in action.outcomes
    ]


def test_d4_a_batch_that_is_next_in_all_its_partitions_goes_out_as_one_block_and_settles_in_each() -> None:
    """D4.1."""
    engine, job = started()
    actions = engine.handle(scored(job), 1.0)
    assert sent(actions) == [[(0, 0), (0, 1), (1, 0), (1, 1)]]
    token = next(one.token for one in actions if isinstance(one, Send))
    assert any(isinstance(one, Settled) for one in engine.handle(Delivered(token), 1.0))
    assert engine.positions() == {FIRST: 2, SECOND: 2}
    assert engine.idle


def test_d4_a_dead_letter_between_predictions_splits_only_its_own_partition() -> None:
    """D4.1."""
    engine, job = started()
    bad, good = job.batch.take(slice(0, 1)), job.batch.take(slice(1, 4))
    actions = engine.handle(scored(job, predictions_of(good), letters_of(bad)), 1.0)
    assert sorted(place for block in sent(actions) for place in block) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for token in [one.token for one in actions if isinstance(one, Send)]:
        engine.handle(Delivered(token), 1.0)
    assert engine.positions() == {FIRST: 2, SECOND: 2}


def test_d6_of_a_batch_one_of_whose_partitions_went_only_the_rest_goes_out() -> None:
    """D6.1."""
    engine, job = started()
    engine.handle(Lost((FIRST,)), 1.0)
    actions = engine.handle(scored(job), 1.0)
    assert sent(actions) == [[(1, 0), (1, 1)]]
    assert engine.statistics.dropped_stale == 2


def test_d6_a_block_that_waits_for_the_sink_loses_only_the_rows_of_the_partition_that_goes() -> None:
    """D6.1."""
    engine, first = started(max_outbound_rows=1)
    assert jobs(engine.handle(two_of_each(2), 1.0)) == []
    actions = engine.handle(scored(first), 1.0)
    [token] = [one.token for one in actions if isinstance(one, Send)]
    [second] = jobs(actions)
    assert sent(engine.handle(scored(second), 1.0)) == []
    engine.handle(Lost((SECOND,)), 1.0)
    assert sent(engine.handle(Delivered(token), 1.0)) == [[(0, 2), (0, 3)]]


def test_d3_the_siblings_of_a_refused_child_count_and_their_record_settles_with_the_letter() -> None:
    """D1.1, E3.5."""
    engine, job = started()
    twice = job.batch.take(np.array([0, 0, 1, 2, 3]))
    children = {"child": np.array([0, 1, 0, 0, 0]), "last": np.array([False, True, True, True, True])}
    rows = MicroBatch(replace(twice.origin, **children), twice.columns)
    actions = engine.handle(StageDone(job.job, StageResult(rows.take(slice(0, 0)), [predictions_of(rows)])), 1.0)
    [first] = [one for one in actions if isinstance(one, Send)]
    [(block, index)] = [
        (number, block.origin.child.tolist().index(1))
        for number, block in enumerate(first.outcomes)
        if block.origin.child is not None and 1 in block.origin.child
    ]
    actions = engine.handle(Delivered(first.token, (Refusal(block, index, "Too large."),)), 1.0)
    assert engine.statistics.predictions == 4
    assert not engine.idle
    [letter] = [one for one in actions if isinstance(one, Send)]
    engine.handle(Delivered(letter.token), 1.0)
    assert (engine.statistics.predictions, engine.statistics.dead_letters) == (4, 1)
    assert engine.positions() == {FIRST: 2, SECOND: 2}
    assert engine.idle
