"""A source of stretches on a real broker."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pytest
from confluent_kafka import Producer

from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.adapters.kafka.range_source import RangeSource
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ports.source import Positions, TopicPartition

pytestmark = pytest.mark.integration


class Unasked:
    """A listener that has nothing to say."""

    def assigned(self, positions: Positions) -> None: ...

    def revoking(self, partitions: Sequence[TopicPartition]) -> Positions:
        return {}

    def lost(self, partitions: Sequence[TopicPartition]) -> None: ...


def test_l2_it_is_known_what_is_left_of_the_stretches(kafka: EmbeddedKafka) -> None:
    """L2.2: a replay that reads nothing although something is left can be told from one that has read all."""
    topic, client = f"stretches-{uuid.uuid4().hex[:8]}", {"bootstrap.servers": kafka.bootstrap_servers}
    admin = KafkaAdmin(client)
    admin.create([NewTopicPlan(topic, 2)])
    producer = Producer(client)
    for number in range(40):
        producer.produce(topic, b"x", partition=number % 2)
    assert producer.flush(30) == 0
    bounds = {TopicPartition(topic, 0): (5, 15), TopicPartition(topic, 1): (0, 20)}
    source = RangeSource(bounds, f"group-{topic}", client, {topic: admin.topics([topic])[topic].id})
    try:
        found = [source.lag()]
        source.open(Unasked())
        found.append(source.lag())
        while source.lag():
            source.poll(3, 0.5)
            found.append(source.lag())
    finally:
        source.close()
    assert found[:2] == [0, 30]
    assert found[1:] == sorted(found[1:], reverse=True)
    assert len(set(found)) > 5
