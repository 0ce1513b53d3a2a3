"""The worker's own thread: it does what the engine says, in the order in which it is said."""

from __future__ import annotations

import pytest

from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.sink import MemorySink
from streamml.adapters.memory.source import MemorySource
from streamml.batch.microbatch import MicroBatch
from streamml.batch.outcome import Kind, Outcomes
from streamml.clock import SystemClock
from streamml.engine.assignment import SlotNames
from streamml.engine.backpressure import Budget
from streamml.engine.batcher import BatchPolicy
from streamml.engine.dead_letters import DeadLetterLimit
from streamml.engine.engine import Engine, EngineConfig
from streamml.runtime.reader import WorkerConfig
from streamml.runtime.worker import Worker
from streamml.stages.stage import Stage

RECORDS = 20_000


class DropAll:
    """A quick step: its rows end where they are, without any acknowledgement to wait for."""

    name = "drop_all"
    outside = False
    too_large = 0

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        return batch.take(slice(0, 0)), [Outcomes(Kind.FILTERED, batch.origin)]


@pytest.mark.parametrize(
    ("batch_rows", "budget_rows"), [(4096, 1000), (4, 50_000)], ids=["a full budget", "many small batches"]
)
def test_b2_a_backlog_is_worked_off_whatever_the_budget_and_the_batch_size(batch_rows: int, budget_rows: int) -> None:
    """B2.1, B2.2."""
    broker = MemoryBroker()
    for topic in ("events", "predictions", "letters"):
        broker.create_topic(topic)
    for _ in range(RECORDS):
        broker.append("events", b"x")
    limit = DeadLetterLimit(1.0, 1_000_000)
    budget = Budget(budget_rows, 1_000_000_000)
    engine = Engine(
        EngineConfig((BatchPolicy(batch_rows),), "predictions", "letters", limit, budget, commit_interval_s=0.01),
        SlotNames(),
    )
    source = MemorySource(broker, ["events"], "group", "earliest")
    clock = SystemClock()
    worker = Worker(engine, source, [Stage([DropAll()])], MemorySink(broker), clock, WorkerConfig())
    give_up = clock.now() + 30
    worker.run(until=lambda engine: engine.statistics.filtered == RECORDS or clock.now() > give_up)
    assert engine.statistics.filtered == RECORDS
    assert list(broker.committed("group").values()) == [RECORDS]
    assert engine.gauge.most_rows <= budget_rows + WorkerConfig().max_poll_rows
