"""Transactions in memory: all of one counts, or nothing does (D2)."""

from __future__ import annotations

import pytest

from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.source import MemorySource
from streamml.adapters.memory.transactions import MemoryTransactions
from streamml.ports.sink import Delivered, TransactionEnded
from streamml.ports.source import TopicPartition
from tests.conformance.grounds import Member
from tests.conformance.sink_behaviours import numbered

IN = TopicPartition("in", 0)


class Ground:
    """A broker, a member of its group, and that member's sink."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.broker.create_topic("in")
        self.broker.create_topic("out")
        self.broker.append("in", b"event")
        self.source = MemorySource(self.broker, ["in"], "group", "earliest")
        self.member = Member(self.source)
        self.source.open(self.member)
        self.member.poll()
        self.sink = MemoryTransactions(self.broker, self.source)
        self.sink.open()

    def written(self) -> list[bytes | None]:
        return [record.value for record in self.broker.records("out")]


@pytest.fixture
def ground() -> Ground:
    return Ground()


def test_d2_records_are_seen_when_their_transaction_is_committed_and_not_before(ground: Ground) -> None:
    ground.sink.send(1, [numbered("out", 2)])
    assert ground.sink.completions() == [Delivered(1)]
    assert ground.written() == []
    ground.sink.commit({IN: 1})
    assert ground.sink.completions() == [TransactionEnded(True)]
    assert ground.written() == [b"0", b"1"]
    assert ground.broker.committed("group") == {IN: 1}


def test_d2_what_is_taken_back_is_never_seen(ground: Ground) -> None:
    ground.sink.send(1, [numbered("out", 2)])
    ground.sink.abort()
    assert ground.sink.completions() == [Delivered(1), TransactionEnded(False)]
    ground.sink.send(2, [numbered("out", 1, first=7)])
    ground.sink.commit({IN: 1})
    assert ground.sink.completions() == [Delivered(2), TransactionEnded(True)]
    assert ground.written() == [b"7"]


def test_d2_a_refused_record_spoils_its_transaction_and_no_other(ground: Ground) -> None:
    ground.broker.refuse(lambda topic, record: "No." if record.value == b"0" else None)
    for token, committed in ((1, False), (2, True)):
        ground.sink.send(token, [numbered("out", 2, first=token - 1)])
        ground.sink.commit({IN: token - 1})
        assert ground.sink.completions()[-1] == TransactionEnded(committed)
    assert ground.written() == [b"1", b"2"]


@pytest.mark.parametrize("again", [False, True], ids=["out", "back again"])
def test_d6_a_generation_that_is_over_commits_nothing(ground: Ground, again: bool) -> None:
    ground.sink.send(1, [numbered("out", 2)])
    ground.sink.commit({IN: 1})
    ground.broker.expel(ground.source)
    if again:
        ground.member.poll()
    assert ground.sink.completions()[-1] == TransactionEnded(False)
    assert (ground.written(), ground.broker.committed("group")) == ([], {IN: 0})


def test_an_outage_passes_and_the_transaction_is_committed_once(ground: Ground) -> None:
    ground.broker.fail("Away.")
    ground.sink.send(1, [numbered("out", 2)])
    ground.sink.commit({IN: 1})
    assert ground.sink.completions() == []
    ground.broker.recover()
    assert ground.sink.completions() == [Delivered(1), TransactionEnded(True)]
    assert len(ground.written()) == 2
