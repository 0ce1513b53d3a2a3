"""E4, L2: workers with threads, on the in-process broker: storms, pauses, and what their probes say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.control import MemoryControl
from streamml.adapters.memory.sink import MemorySink
from streamml.adapters.memory.source import MemorySource
from streamml.batch.microbatch import MicroBatch
from streamml.batch.outcome import Failure, Outcomes, dead_letters
from streamml.clock import SystemClock
from streamml.engine.assignment import SlotNames
from streamml.engine.backpressure import Budget
from streamml.engine.batcher import BatchPolicy
from streamml.engine.dead_letters import DeadLetterLimit
from streamml.engine.engine import Engine, EngineConfig
from streamml.errors import DeadLetterLimitExceeded
from streamml.ports.control import RUNNING, GroupState
from streamml.ports.sink import Delivered, TransactionEnded
from streamml.runtime.reader import WorkerConfig
from streamml.runtime.worker import Worker
from streamml.stages.stage import Stage

RECORDS = 100


class FailAll:
    """Every row becomes a dead letter."""

    name = "fail_all"
    outside = False
    too_large = 0

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        return batch.take(slice(0, 0)), [dead_letters(batch.origin, [Failure("s", "E", "m")] * len(batch))]


class Deaf(MemorySink):
    """Hears of no acknowledgement."""

    def completions(self) -> Sequence[Delivered | TransactionEnded]:
        return []


class Stalled(Deaf):
    """The broker answers, and takes nothing for one of its topics."""

    def trouble(self) -> str | None:
        return "the broker has not acknowledged records for 'letters'"


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker()
    for topic in ("events", "predictions", "letters"):
        made.create_topic(topic, partitions=2)
    for number in range(RECORDS):
        made.append("events", b"x", partition=number % 2)
    return made


def worker_on(
    broker: MemoryBroker, *, max_ratio: float = 0.1, control: bool = True, sink: MemorySink | None = None
) -> Worker:
    limit = DeadLetterLimit(max_ratio, 10)
    config = EngineConfig((BatchPolicy(20),), "predictions", "letters", limit, Budget(1000, 10**9), worker="w")
    return Worker(
        Engine(config, SlotNames()),
        MemorySource(broker, ["events"], "group", "earliest"),
        [Stage([FailAll()])],
        sink or MemorySink(broker),
        SystemClock(),
        WorkerConfig(drain_s=0.1, stuck_after_s=0.2),
        control=MemoryControl(broker, "group") if control else None,
    )


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not met():
        assert time.monotonic() < deadline, "This has not come true within 30 s."
        threading.Event().wait(0.005)


def running(*workers: Worker) -> list[threading.Thread]:
    threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    return threads


def stop(threads: list[threading.Thread], *workers: Worker) -> None:
    for worker in workers:
        worker.request_stop()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_e4_a_storm_of_one_worker_pauses_all_commits_nothing_and_resume_goes_on(broker: MemoryBroker) -> None:
    """E4.1, E4.6."""
    workers = worker_on(broker), worker_on(broker)
    threads = running(*workers)
    until(lambda: all("paused: 100%" in worker.ready().reason for worker in workers))
    state = broker.group_state("group")
    assert state.storm is not None
    assert state.by == "w"
    assert sum(broker.committed("group").values()) == 0
    assert all(worker.live().ok for worker in workers)
    broker.tell_group("group", RUNNING)
    until(lambda: sum(broker.committed("group").values()) > 0)
    stop(threads, *workers)


def test_e4_a_worker_that_starts_in_a_pause_takes_nothing(broker: MemoryBroker) -> None:
    """E4.4."""
    broker.tell_group("group", GroupState(True, "maintenance"))
    worker = worker_on(broker, max_ratio=1.0)
    threads = running(worker)
    until(lambda: worker.ready().reason.startswith("paused") and worker._reader.joined())
    assert worker.ready().reason == "paused: maintenance"
    assert worker._engine.statistics.polled == 0
    broker.tell_group("group", RUNNING)
    until(lambda: sum(broker.committed("group").values()) == RECORDS)
    assert worker.ready().ok
    broker.fail("The broker is away.")
    assert worker.ready() == (False, "waiting: The broker is away.")
    broker.recover()
    stop(threads, worker)


def test_e4_where_the_group_cannot_be_told_a_storm_ends_the_worker(broker: MemoryBroker) -> None:
    """E4.7."""
    with pytest.raises(DeadLetterLimitExceeded, match="start again"):
        worker_on(broker, control=False).run()
    assert sum(broker.committed("group").values()) == 0


def test_l3_a_stop_while_the_broker_is_away_leaves_nothing_open(broker: MemoryBroker) -> None:
    """L3.1."""
    broker.fail("The broker is away.")
    worker = worker_on(broker)
    threads = running(worker)
    stop(threads, worker)
    assert not any(lane._thread.is_alive() for lane in worker._lanes)


def test_l2_a_worker_that_stands_still_with_records_at_hand_is_not_alive(broker: MemoryBroker) -> None:
    """L2.2."""
    worker = worker_on(broker, sink=Deaf(broker))
    threads = running(worker)
    until(lambda: not worker.live().ok)
    assert f"{RECORDS} records are at hand" in worker.live().reason
    stop(threads, worker)


def test_l2_a_worker_whose_output_topic_takes_nothing_is_alive_and_not_ready(broker: MemoryBroker) -> None:
    """L2.2, L2.3."""
    worker = worker_on(broker, sink=Stalled(broker))
    threads = running(worker)
    until(lambda: worker._reader.joined() and worker._engine.gauge.rows == RECORDS)
    assert worker.ready() == (False, "waiting: the broker has not acknowledged records for 'letters'")
    end = time.monotonic() + 4 * worker._config.stuck_after_s
    until(lambda: not worker.live().ok or time.monotonic() > end)
    assert worker.live().ok
    stop(threads, worker)
