"""Sources obey their port; what is true of one adapter only is below."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, Message, Producer

from streamml.adapters.kafka.source import KafkaSource
from streamml.errors import SourceUnavailable
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ports.source import TopicPartition
from tests.conformance.grounds import Ground, KafkaGround, Member, MemoryGround, closed_port, joined, until
from tests.conformance.source_behaviours import SourceBehaviours


class TestMemory(SourceBehaviours):
    @pytest.fixture
    def empty_ground(self) -> Ground:
        return MemoryGround()


@pytest.mark.integration
class TestKafka(SourceBehaviours):
    @pytest.fixture
    def empty_ground(self, kafka: EmbeddedKafka) -> Ground:
        return KafkaGround(kafka)


def test_memory_open_says_that_the_broker_is_away() -> None:
    ground = MemoryGround()
    ground.create(ground.topic, 1)
    with ground.outage(), pytest.raises(SourceUnavailable, match="away"):
        ground.source().open(Member(ground.source()))


def test_kafka_open_says_that_the_broker_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamml.adapters.kafka.source._TIMEOUT_S", 0.5)
    source = KafkaSource(["events"], "group", "earliest", {"bootstrap.servers": f"127.0.0.1:{closed_port()}"})
    with pytest.raises(SourceUnavailable):
        source.open(Member(source))
    source.close()


@pytest.mark.integration
def test_kafka_the_end_of_a_partition_lies_behind_what_nobody_is_shown(kafka: EmbeddedKafka) -> None:
    ground = KafkaGround(kafka)
    ground.create(ground.topic, 1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": ground.topic})
    producer.init_transactions()
    for number, committed in enumerate([True, False]):
        producer.begin_transaction()
        producer.produce(ground.topic, b"%d" % number)
        assert producer.flush(30) == 0
        producer.commit_transaction() if committed else producer.abort_transaction()
    with joined(ground.source()) as member:
        ends: dict[TopicPartition, int] = {}

        def ended() -> bool:
            ends.update(member.source.ends())
            return bool(ends)

        until(ended, member)
        assert member.values() == [b"0"]
        assert ends == {TopicPartition(ground.topic, 0): 4}
        assert member.source.ends() == {}


def test_kafka_records_that_came_with_an_error_are_delivered_before_it_is_raised() -> None:
    source = KafkaSource(["events"], "group", "earliest", {"bootstrap.servers": f"127.0.0.1:{closed_port()}"})
    given = [Message(offset=0), Message(error=KafkaError(KafkaError._BAD_MSG)), Message(offset=1)]
    assert source._without_events(given) == [given[0], given[2]]
    with pytest.raises(SourceUnavailable):
        source.poll(10, 0.0)
    assert source.poll(10, 0.0) == []
    source.close()
