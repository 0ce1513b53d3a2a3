"""Sinks obey their port; what is true of one adapter only is below."""

from __future__ import annotations

import pytest

from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.sink import MemorySink
from streamml.errors import SinkUnavailable
from streamml.ops.embedded.kafka import EmbeddedKafka
from tests.conformance.grounds import Ground, KafkaGround, MemoryGround
from tests.conformance.sink_behaviours import SinkBehaviours, numbered


class TestMemory(SinkBehaviours):
    @pytest.fixture
    def ground(self) -> Ground:
        return MemoryGround()


@pytest.mark.integration
class TestKafka(SinkBehaviours):
    @pytest.fixture
    def ground(self, kafka: EmbeddedKafka) -> Ground:
        return KafkaGround(kafka)


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
    assert [(refusal.index, refusal.message) for refusal in only.refusals] == [(1, "Not this one.")]
    assert [record.value for record in broker.records("out")] == [b"0", b"2"]
