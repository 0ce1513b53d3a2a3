"""The source thread: what it says for partitions, and for which."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import pytest

from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.source import MemorySource
from streamml.clock import SystemClock
from streamml.engine.events import Assigned, Lost, Released, Revoking
from streamml.errors import FatalError
from streamml.ports.source import Positions, TopicPartition
from streamml.runtime.inbox import Crash, Inbox, Message, Polls
from streamml.runtime.pulse import Pulse
from streamml.runtime.reader import Reader, WorkerConfig
from tests.unit.runtime.second_member import Other

DEADLINE_S = 10.0
FIRST, SECOND = TopicPartition("events", 0), TopicPartition("events", 1)


class Case:
    """A reader whose worker is the test."""

    def __init__(self, config: WorkerConfig | None = None) -> None:
        self.broker = MemoryBroker()
        self.broker.create_topic("events", partitions=2)
        self.inbox: Inbox = queue.SimpleQueue()
        self.source = MemorySource(self.broker, ["events"], "group", "earliest")
        self.reader = Reader(self.source, SystemClock(), config or WorkerConfig(), self.inbox, Pulse())
        self.reader.start()
        self.hear(Assigned)

    def hear(self, kind: type[Message]) -> Message:
        """The next message, which is of that kind."""
        message = self.inbox.get(timeout=DEADLINE_S)
        assert isinstance(message, kind)
        if isinstance(message, (Assigned, Revoking, Lost)):
            self.reader.forget(list(message.partitions))
        return message

    def commits_pass(self, partition: TopicPartition, position: int) -> None:
        """Commit, and return when that has been done and so all that was asked for before."""
        self.reader.commit({partition: position})
        self.broker.wait_for(lambda: self.broker.committed("group")[partition] == position, DEADLINE_S)


@pytest.fixture
def case() -> Iterator[Case]:
    made = Case()
    yield made
    made.reader.stop({})


def test_d6_a_commit_asked_for_while_a_partition_drains_does_not_move_its_next_owner_back(case: Case) -> None:
    """D6.2."""
    other = Other(case.broker)
    going = case.hear(Revoking)
    assert isinstance(going, Revoking)
    (gone,) = going.partitions
    (kept,) = {FIRST, SECOND} - {gone}
    case.reader.commit({gone: 10})
    case.reader.released(Released((gone,), {gone: 12}, going.number))
    case.broker.wait_for(lambda: bool(other.source.poll(1, 0.0) or other.starts), DEADLINE_S)
    assert other.starts == {gone: 12}
    case.commits_pass(kept, 1)
    assert case.broker.committed("group") == {gone: 12, kept: 1}


def test_d6_an_answer_to_an_earlier_revoke_is_no_answer_to_this_one() -> None:
    """D6.2: the partitions came back in between, and what was settled of them then is settled no more."""
    case = Case(WorkerConfig(drain_s=0.05))
    where = (FIRST, SECOND)
    early: list[Positions] = []
    thread = threading.Thread(target=lambda: early.append(case.reader._drained(where)), daemon=True)
    thread.start()
    try:
        first = case.hear(Revoking)
        assert isinstance(first, Revoking)
        thread.join(DEADLINE_S)
        assert early == [{}]
        case.hear(Lost)
        case.reader.released(Released(where, {FIRST: 5, SECOND: 5}, first.number))
        late: list[Positions] = []
        thread = threading.Thread(target=lambda: late.append(case.reader._drained(where)), daemon=True)
        thread.start()
        second = case.hear(Revoking)
        assert isinstance(second, Revoking)
        case.reader.released(Released(where, {FIRST: 2, SECOND: 2}, second.number))
        thread.join(DEADLINE_S)
        assert late == [{FIRST: 2, SECOND: 2}]
    finally:
        case.reader.stop({})


def test_d6_nothing_is_committed_for_a_partition_that_was_lost(case: Case) -> None:
    """D6.2."""
    case.commits_pass(FIRST, 5)
    case.broker.expel(case.source)
    case.hear(Lost)
    case.reader.commit({FIRST: 4, SECOND: 4})
    again = case.hear(Assigned)
    assert isinstance(again, Assigned)
    assert again.positions == {FIRST: 5, SECOND: 0}
    case.reader.commit({FIRST: 3})
    case.commits_pass(SECOND, 7)
    assert case.broker.committed("group")[FIRST] == 5


def test_l3_leaving_commits_the_last_positions_of_what_is_still_ours(case: Case) -> None:
    """L3.1."""
    case.reader.stop({FIRST: 3, SECOND: 4, TopicPartition("events", 9): 5})
    assert case.broker.committed("group") == {FIRST: 3, SECOND: 4}


@pytest.mark.logs_errors("Unexpected ZeroDivisionError in the source")
def test_what_the_source_raises_is_heard_of(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case.source, "poll", lambda rows, timeout_s: 1 / 0)
    crash = case.hear(Crash)
    assert isinstance(crash, Crash)
    assert isinstance(crash.error, FatalError)


def test_b2_partitions_are_paused_only_after_a_second_without_room_and_read_on_as_soon_as_there_is_some(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B2.2, B2.3."""
    told: queue.SimpleQueue[float] = queue.SimpleQueue()
    pause = case.source.pause

    def paused() -> None:
        pause()
        told.put(time.monotonic())

    monkeypatch.setattr(case.source, "pause", paused)
    closed = time.monotonic()
    case.reader.gate(False)
    case.broker.append("events", b"x")
    assert told.get(timeout=DEADLINE_S) - closed >= 0.9 * WorkerConfig().room_wait_s
    assert WorkerConfig().room_wait_s == 1.0
    case.reader.gate(True)
    polls = case.hear(Polls)
    assert isinstance(polls, Polls)


def test_b2_what_is_polled_and_not_taken_is_bounded_in_bytes() -> None:
    """B2.7."""
    case = Case(WorkerConfig(max_poll_bytes=100))
    reader, polled = case.reader, case.reader._untaken._gauge
    try:
        for number in range(1, 6):
            case.broker.append("events", bytes(60), partition=0)
            # What is there when a turn begins is polled in it, if anything is; commits pass at the beginning of turns.
            case.commits_pass(SECOND, 2 * number)
            case.commits_pass(SECOND, 2 * number + 1)
            assert polled.rows == min(number, 2)
        polls = case.inbox.get(timeout=DEADLINE_S)
        assert isinstance(polls, Polls)
        reader.offer(polls)
        taken = reader.take()
        assert taken is not None
        assert sum(map(len, taken.runs)) == 2
        case.commits_pass(SECOND, 20)
        case.commits_pass(SECOND, 21)
        # A poll asks for as many records of the usual size as there is room for, so the bound is overshot by less than one.
        assert (polled.rows, polled.most_bytes) == (2, 120)
    finally:
        reader.stop({})


def test_d2_d6_the_engine_is_behind_from_a_loss_until_it_has_heard_of_all_that_followed(case: Case) -> None:
    """D6.2: a transaction that was cut before must not be committed in the generation that came after."""
    assert not case.reader.behind
    case.broker.expel(case.source)
    lost, again = case.inbox.get(timeout=DEADLINE_S), case.inbox.get(timeout=DEADLINE_S)
    assert isinstance(lost, Lost)
    assert isinstance(again, Assigned)
    for change in (lost, again):
        assert case.reader.behind
        case.reader.forget(list(change.partitions))
    assert not case.reader.behind
