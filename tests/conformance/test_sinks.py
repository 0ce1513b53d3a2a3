"""Sinks obey their port; what is true of one adapter only is below."""

from __future__ import annotations

import time
from random import Random

import pytest

from streamml.adapters.kafka import sink as kafka_sink
from streamml.adapters.kafka.sink import KafkaSink
from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.sink import MemorySink
from streamml.errors import FatalError, SinkUnavailable
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ports.sink import Delivered
from streamml.ports.source import Headers, RawRecord
from tests.conformance.grounds import DEADLINE_S, Ground, KafkaGround, MemoryGround
from tests.conformance.sink_behaviours import SinkBehaviours, block, ended, numbered

NEXT_YEAR = 1000 * int(time.time() + 365 * 86_400)


class TestMemory(SinkBehaviours):
    @pytest.fixture
    def ground(self) -> Ground:
        return MemoryGround()


@pytest.mark.integration
class TestKafka(SinkBehaviours):
    @pytest.fixture
    def ground(self, kafka: EmbeddedKafka) -> Ground:
        return KafkaGround(kafka)


@pytest.mark.integration
def test_kafka_of_records_that_look_alike_none_that_was_refused_goes_unseen(kafka: EmbeddedKafka) -> None:
    ground = KafkaGround(kafka)
    ground.create(ground.topic, 1, max_bytes=10_000)
    sink = ground.sink()
    # Reports do not tell headers, which alone make the second one too large.
    headers: list[Headers] = [[], [("large", Random(1).randbytes(20_000))], []]
    records = [RawRecord(b"k", b"alike" if number < 2 else b"other", headers[number], 1) for number in range(3)]
    sink.send(1, [block(ground.topic, records)])
    (only,) = ended(sink, 1)
    assert [refusal.index for refusal in only.refusals] == [0, 1]
    assert [record.value for _, record in ground.records(ground.topic)] == [b"alike", b"other"]


@pytest.mark.integration
def test_kafka_neighbours_of_a_record_that_is_refused_for_its_time_go_out_once_each(kafka: EmbeddedKafka) -> None:
    """E3.5: the broker refuses a whole request for one record, and says of the others that they were not to blame."""
    ground = KafkaGround(kafka)
    ground.create(ground.topic, 1)
    sink = ground.sink()
    for token in range(2):
        numbers = range(token * 50, token * 50 + 50)
        records = [RawRecord(b"k", b"%d" % n, [("n", b"%d" % n)], NEXT_YEAR if n % 50 == 20 else 1) for n in numbers]
        sink.send(token, [block(ground.topic, records)])
    both = sorted(ended(sink, 2), key=lambda one: one.token)
    assert [[refusal.index for refusal in one.refusals] for one in both] == [[20], [20]]
    written = [record for _, record in ground.records(ground.topic)]
    assert sorted(int(record.value or b"") for record in written) == [n for n in range(100) if n % 50 != 20]
    assert all(record.headers == [("n", record.value)] for record in written)


@pytest.mark.integration
def test_kafka_what_the_clients_queue_has_no_room_for_waits_in_order_and_send_does_not(kafka: EmbeddedKafka) -> None:
    ground = KafkaGround(kafka)
    ground.create(ground.topic, 1)
    sink = KafkaSink({"bootstrap.servers": kafka.bootstrap_servers, "queue.buffering.max.messages": 10})
    sink.open()
    with ground.outage():
        for token in range(4):
            sink.send(token, [numbered(ground.topic, 25, first=token * 25)])
        assert sink.completions() == []
        assert sink.close(0.1) == 100
    assert sorted(one.token for one in ended(sink, 4)) == [0, 1, 2, 3]
    assert [record.value for _, record in ground.records(ground.topic)] == [b"%d" % number for number in range(100)]


@pytest.mark.integration
def test_kafka_a_topic_that_is_not_there_stops_the_worker(kafka: EmbeddedKafka) -> None:
    sink = KafkaSink({"bootstrap.servers": kafka.bootstrap_servers, "topic.metadata.propagation.max.ms": 100})
    sink.send(1, [numbered("nowhere", 3)])
    with pytest.raises(FatalError, match="nowhere"):
        ended(sink, 1)


@pytest.mark.integration
def test_kafka_a_topic_that_takes_no_writes_is_named_until_it_does(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L2.3."""
    monkeypatch.setattr(kafka_sink, "LONG_S", 0.5)
    ground = KafkaGround(kafka)
    sink = ground.sink()
    sink.send(1, [numbered(ground.topic, 3)])
    assert sink.trouble() is None
    end = time.monotonic() + DEADLINE_S
    while repr(ground.topic) not in (sink.trouble() or ""):
        assert time.monotonic() < end
        sink.completions()
    ground.create(ground.topic, 1)
    ended(sink, 1)
    assert sink.trouble() is None


def test_memory_open_says_that_the_broker_is_away() -> None:
    ground = MemoryGround()
    with ground.outage(), pytest.raises(SinkUnavailable, match="away"):
        ground.sink().open()


def test_memory_refuses_what_the_test_says() -> None:
    broker = MemoryBroker()
    broker.create_topic("out")
    broker.refuse(lambda topic, record: "Not this one." if record.value == b"1" else None)
    sink = MemorySink(broker)
    sink.send(1, [numbered("out", 3)])
    (only,) = sink.completions()
    assert isinstance(only, Delivered)
    assert [(refusal.index, refusal.message) for refusal in only.refusals] == [(1, "Not this one.")]
    assert [record.value for record in broker.records("out")] == [b"0", b"2"]
