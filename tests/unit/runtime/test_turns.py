"""Who takes the turns at the source: the worker's thread while it is free, the source thread otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from streamml.adapters.memory.broker import MemoryBroker
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
from streamml.errors import FatalError, StreamMLError
from streamml.ports.sink import Delivered, TransactionEnded
from streamml.ports.source import RecordRun, TopicPartition
from streamml.runtime.reader import WorkerConfig
from streamml.runtime.worker import Worker
from streamml.stages.stage import Stage
from tests.unit.runtime.second_member import Other

DEADLINE_S = 30.0
OWN = "the worker's own thread"
SOURCE = "streamml-source"
HELD = 2


class Step:
    """Every row becomes a dead letter; a batch waits where it is told to."""

    name = "step"
    outside = False
    too_large = 0

    def __init__(self) -> None:
        self.may_pass = threading.Event()
        self.may_pass.set()
        self.ran_on = ""

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        self.ran_on = threading.current_thread().name
        assert self.may_pass.wait(DEADLINE_S)
        return batch.take(slice(0, 0)), [dead_letters(batch.origin, [Failure("s", "E", "m")] * len(batch))]


class Noting(MemorySource):
    """Notes on which threads it was polled, on which that brought records, and on which it let partitions go."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker, ["events"], "group", "earliest")
        self.polled_on: list[str] = []
        self.read_on: list[str] = []
        self.revoked_on: list[str] = []

    def poll(self, max_rows: int, timeout_s: float) -> list[RecordRun]:
        self.polled_on.append(threading.current_thread().name)
        runs = super().poll(max_rows, timeout_s)
        self.read_on += [threading.current_thread().name for _ in runs]
        return runs

    def _give_up(self, partitions: list[TopicPartition]) -> None:
        self.revoked_on.append(threading.current_thread().name)
        super()._give_up(partitions)


class Holding(MemorySink):
    """Tells of no acknowledgement until it may; fails once where it is to."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.may_tell = threading.Event()
        self.may_tell.set()
        self.error: Exception | None = None

    def completions(self) -> Sequence[Delivered | TransactionEnded]:
        error, self.error = self.error, None
        if error is not None:
            raise error
        return super().completions() if self.may_tell.is_set() else []


class Case:
    """A worker on a thread of a name, with a topic of two partitions."""

    def __init__(self, drain_s: float = DEADLINE_S) -> None:
        self.broker = MemoryBroker()
        for topic in ("events", "predictions", "letters"):
            self.broker.create_topic(topic, partitions=2)
        self.source, self.sink, self.step = Noting(self.broker), Holding(self.broker), Step()
        policy, limit = BatchPolicy(20), DeadLetterLimit(1.0, 10**9)
        config = EngineConfig((policy,), "predictions", "letters", limit, Budget(1000, 10**9), commit_interval_s=0.01)
        self.engine = Engine(config, SlotNames())
        self.worker = Worker(
            self.engine,
            self.source,
            [Stage([self.step])],
            self.sink,
            SystemClock(),
            WorkerConfig(drain_s=drain_s),
        )
        self.error: StreamMLError | None = None
        self.thread = threading.Thread(target=self._run, name=OWN, daemon=True)

    def _run(self) -> None:
        try:
            self.worker.run()
        except StreamMLError as error:
            self.error = error

    def until(self, met: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not met():
            assert time.monotonic() < deadline, f"This has not come true within {DEADLINE_S:.0f} s."
            threading.Event().wait(0.005)

    def appends_until(self, met: Callable[[], bool], at_once: int = 1) -> None:
        """So many records at once, again and again, each time when what is there has been polled."""

        def once_more() -> bool:
            if not self.source.lag():
                with self.broker.lock():
                    for _ in range(at_once):
                        self.broker.append("events", b"x")
            return met()

        self.until(once_more)

    def settled(self) -> bool:
        return self.engine.statistics.dead_letters == len(self.broker.records("events"))

    def holds_records_and_reads_on_its_own(self) -> None:
        """The worker's thread is free, takes turns at the source, and what it sent last is not acknowledged."""
        self.appends_until(lambda: self.source.read_on[-1:] == [OWN])
        self.until(self.settled)
        self.sink.may_tell.clear()
        for _ in range(HELD):
            self.broker.append("events", b"x")
        self.until(lambda: self.engine.outbound.rows == HELD)
        # A busy machine can make a step slow, and the source thread has the turns while that goes on.
        polled = len(self.source.polled_on)
        self.until(lambda: self.source.polled_on[polled:][-2:] == [OWN] * 2)


@contextmanager
def running(drain_s: float = DEADLINE_S) -> Iterator[Case]:
    case = Case(drain_s)
    case.thread.start()
    try:
        yield case
    finally:
        case.sink.may_tell.set()
        case.step.may_pass.set()
        case.worker.request_stop()
        case.thread.join(DEADLINE_S)
        assert not case.thread.is_alive()


def test_a_worker_that_is_free_reads_on_its_own_thread() -> None:
    with running() as case:
        case.appends_until(lambda: case.source.read_on[-5:] == [OWN] * 5)
        case.until(case.settled)


def test_a_backlog_is_read_ahead_by_the_source_thread() -> None:
    with running() as case:
        case.appends_until(lambda: case.source.read_on[-5:] == [OWN] * 5)
        before = len(case.source.read_on)
        case.appends_until(lambda: SOURCE in case.source.read_on[before:], at_once=300)
        case.until(case.settled)
        case.appends_until(lambda: case.source.read_on[-5:] == [OWN] * 5)


def test_b1_polls_go_on_while_a_stage_keeps_the_workers_thread() -> None:
    """B1.1: the step that hangs was quick until then, so that it runs where everything else does."""
    with running() as case:
        # Until it does: on a busy machine the batch before may have been slow.
        while case.step.ran_on != OWN:
            case.step.may_pass.set()
            case.appends_until(lambda: case.step.ran_on == OWN)
            case.until(case.settled)
            case.step.may_pass.clear()
            case.step.ran_on = ""
            case.broker.append("events", b"x")
            case.until(lambda: case.step.ran_on != "")
        read = len(case.source.read_on)
        case.broker.append("events", b"x")
        case.until(lambda: case.source.read_on[read:] == [SOURCE])
        case.step.may_pass.set()
        case.until(case.settled)


def test_d5_a_partition_that_goes_in_a_turn_of_the_workers_own_thread_is_drained() -> None:
    """D5.1, D1.1: what is acknowledged in the midst of that turn is committed with the partition, and its next owner starts behind."""
    with running() as case:
        case.holds_records_and_reads_on_its_own()
        other = Other(case.broker)
        case.until(lambda: bool(case.source.revoked_on))
        assert case.source.revoked_on == [OWN]
        assert not case.settled()
        case.sink.may_tell.set()
        case.until(lambda: bool(other.source.poll(1, 0.0) or other.starts))
        assert case.settled()
        ((gone, start),) = other.starts.items()
        assert start == case.broker.marks(gone)[1]
        other.source.close()


def test_what_fails_while_a_partition_drains_ends_the_worker_with_it() -> None:
    with running() as case:
        case.holds_records_and_reads_on_its_own()
        other = Other(case.broker)
        case.until(lambda: case.source.revoked_on == [OWN])
        case.sink.error = FatalError("The sink has had enough.")
        case.thread.join(DEADLINE_S)
        assert str(case.error) == "The sink has had enough."
        other.source.close()


def test_l3_a_stop_while_a_partition_drains_takes_its_time_and_no_more() -> None:
    """L3.1: nobody acknowledges anything, and the worker leaves all the same, without a commit of what is not."""
    with running(drain_s=0.3) as case:
        case.holds_records_and_reads_on_its_own()
        other = Other(case.broker)
        case.until(lambda: case.source.revoked_on == [OWN])
        case.worker.request_stop()
        case.thread.join(DEADLINE_S)
        assert not case.thread.is_alive()
        assert case.error is None
        written = len(case.broker.records("events"))
        assert written - HELD <= sum(case.broker.committed("group").values()) < written
        other.source.close()


@pytest.mark.logs_errors("Unexpected ZeroDivisionError in the source")
def test_what_the_source_raises_in_a_turn_of_the_workers_own_thread_is_told_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running() as case:
        case.appends_until(lambda: case.source.read_on[-1:] == [OWN])
        monkeypatch.setattr(case.source, "poll", lambda rows, timeout_s: 1 / 0)
        case.thread.join(DEADLINE_S)
        assert isinstance(case.error, FatalError)
        assert "ZeroDivisionError in the source" in str(case.error)
