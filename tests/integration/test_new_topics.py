"""A topic can be read as soon as it is made: a broker that is to lead its partitions may hear of it a moment later."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.adapters.kafka.chunks import Stretch, read_chunks
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.adapters.kafka.probe import GroupProbe
from streamml.adapters.kafka.stretch import StretchReader
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ports.source import TopicPartition

pytestmark = pytest.mark.integration
PARTITIONS = 8
TOPICS = 15
"""So many that some leader is asked too early: of those first asked on a quiet machine each fifth topic had one."""


def read(client: Mapping[str, Any], topic: str) -> object:
    return list(read_chunks(client, topic))


def read_since(client: Mapping[str, Any], topic: str) -> object:
    return list(read_chunks(client, topic, Stretch(since_ms=1)))


def ends(client: Mapping[str, Any], topic: str) -> object:
    probe = GroupProbe(client, topic)
    try:
        return [one for one in probe.ends(places(topic)).values() if one]
    finally:
        probe.close()


def bounds(client: Mapping[str, Any], topic: str) -> object:
    return [one for one in KafkaOffsets(client).bounds(places(topic)).values() if one != (0, 0)]


def stretches(client: Mapping[str, Any], topic: str) -> object:
    found = []
    for where in places(topic):
        reader = StretchReader(client, where)
        found += [one for one in (reader.offset_at(1),) if one is not None]
        reader.close()
    return found


def topics(client: Mapping[str, Any], topic: str) -> object:
    found = KafkaAdmin(client).topics([topic]).values()
    return [one for one in found if one.partitions != PARTITIONS or not one.configuration_shown] if found else ["none"]


def places(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(PARTITIONS)]


@pytest.mark.parametrize("asked", [read, read_since, ends, bounds, stretches, topics])
def test_a_topic_that_was_just_made_has_nothing_in_it(
    kafka: EmbeddedKafka, asked: Callable[[Mapping[str, Any], str], object]
) -> None:
    client = {"bootstrap.servers": kafka.bootstrap_servers}
    admin = KafkaAdmin(client)
    for _ in range(TOPICS):
        topic = f"new-{uuid.uuid4().hex[:8]}"
        admin.create([NewTopicPlan(topic, PARTITIONS)])
        assert asked(client, topic) == []
