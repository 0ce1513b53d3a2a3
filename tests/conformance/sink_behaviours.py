"""What every sink does, whatever is behind it."""

from __future__ import annotations

import random
import time

import pytest

from streamml.ports.sink import Delivered, OutboundRecords, Sink
from streamml.ports.source import Headers, RawRecord
from tests.conformance.grounds import DEADLINE_S, Ground


def block(topic: str, records: list[RawRecord]) -> OutboundRecords:
    return OutboundRecords(
        topic,
        [record.key for record in records],
        [record.value for record in records],
        [record.headers for record in records],
        [record.timestamp for record in records],
    )


def numbered(topic: str, count: int, first: int = 0, key: bytes | None = None) -> OutboundRecords:
    return block(topic, [RawRecord(key, str(number).encode(), [], 1000) for number in range(first, first + count)])


def ended(sink: Sink, count: int) -> list[Delivered]:
    """The next ``count`` completions."""
    found: list[Delivered] = []
    end = time.monotonic() + DEADLINE_S
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} calls ended in time"
        found += (one for one in sink.completions() if isinstance(one, Delivered))
    return found


class SinkBehaviours:
    """Subclasses give the fixture ``ground`` a value: without topics."""

    @pytest.fixture
    def ground(self) -> Ground:
        raise NotImplementedError

    @pytest.fixture
    def topic(self, ground: Ground) -> str:
        """A topic of two partitions that takes 10,000 bytes at most."""
        ground.create(ground.topic, 2, max_bytes=10_000)
        return ground.topic

    @pytest.fixture
    def sink(self, ground: Ground) -> Sink:
        made = ground.sink()
        made.open()
        return made

    def test_records_are_written_as_they_are(self, ground: Ground, sink: Sink, topic: str) -> None:
        shared: Headers = [("a", b"1"), ("b", None), ("a", b"2")]
        records = [
            RawRecord(b"k", b"value", shared, 1_700_000_000_123),
            RawRecord(b"k", None, shared, 5),
            RawRecord(b"k", b"", [], 6),
            RawRecord(b"k", b"\x00\xff", [], 7),
        ]
        sink.send(1, [block(topic, records)])
        assert ended(sink, 1) == [Delivered(1)]
        assert [record for _, record in ground.records(topic)] == records
        assert shared == [("a", b"1"), ("b", None), ("a", b"2")]

    def test_every_token_is_reported_once_when_all_of_its_records_are_there(
        self, ground: Ground, sink: Sink, topic: str
    ) -> None:
        assert sink.completions() == []
        ground.create(f"{topic}.other", 1)
        for token in range(20):
            sink.send(token, [numbered(topic, 3), numbered(f"{topic}.other", 2)])
        assert sorted(one.token for one in ended(sink, 20)) == list(range(20))
        assert sink.completions() == []
        assert len(ground.records(topic)) == 60
        assert len(ground.records(f"{topic}.other")) == 40

    def test_d4_records_of_one_partition_keep_the_order_of_calls(self, ground: Ground, sink: Sink, topic: str) -> None:
        """D4.4."""
        for token in range(10):
            sink.send(token, [numbered(topic, 30, first=token * 30, key=b"same")])
        ended(sink, 10)
        assert [record.value for _, record in ground.records(topic)] == [str(number).encode() for number in range(300)]

    def test_equal_keys_share_a_partition_and_keys_spread(self, ground: Ground, sink: Sink, topic: str) -> None:
        keys = [str(number % 50).encode() for number in range(500)]
        sink.send(1, [block(topic, [RawRecord(key, b"v", [], 1) for key in keys])])
        ended(sink, 1)
        places = {(record.key, partition) for partition, record in ground.records(topic)}
        assert len(places) == 50
        assert {partition for _, partition in places} == {0, 1}

    def test_records_without_a_key_are_written_too(self, ground: Ground, sink: Sink, topic: str) -> None:
        sink.send(1, [numbered(topic, 100)])
        ended(sink, 1)
        assert sorted(int(record.value or b"") for _, record in ground.records(topic)) == list(range(100))

    def test_a_record_that_is_too_large_is_refused_and_named_and_its_neighbours_are_written(
        self, ground: Ground, sink: Sink, topic: str
    ) -> None:
        noise = random.Random(1).randbytes(30_000)  # What compression does not make smaller.
        marked: Headers = [("streamml", b"1;id")]
        small = [RawRecord(str(number).encode(), b"small", marked, 1) for number in range(4)]
        sink.send(7, [block(topic, small), block(topic, [*small, RawRecord(b"k", noise, marked, 1), *small])])
        (only,) = ended(sink, 1)
        assert only.token == 7
        assert [(refusal.block, refusal.index) for refusal in only.refusals] == [(1, 4)]
        assert only.refusals[0].message
        assert len(ground.records(topic)) == 12

    def test_closing_writes_what_is_on_its_way(self, ground: Ground, sink: Sink, topic: str) -> None:
        sink.send(1, [numbered(topic, 50)])
        assert sink.close(DEADLINE_S) == 0
        assert len(ground.records(topic)) == 50

    def test_an_outage_passes_in_order_and_once_and_send_does_not_wait_for_its_end(
        self, ground: Ground, sink: Sink, topic: str
    ) -> None:
        """D4.4."""
        sink.send(0, [numbered(topic, 5, key=b"same")])
        ended(sink, 1)
        with ground.outage():
            started = time.monotonic()
            for token in range(1, 4):
                sink.send(token, [numbered(topic, 5, first=token * 5, key=b"same")])
            assert sink.completions() == []
            assert time.monotonic() - started < 2
            assert sink.close(0.1) == 15
        assert sorted(one.token for one in ended(sink, 3)) == [1, 2, 3]
        assert [record.value for _, record in ground.records(topic)] == [str(number).encode() for number in range(20)]
