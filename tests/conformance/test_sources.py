"""Sources obey their port; what is true of one adapter only is below."""

from __future__ import annotations

import pytest

from streamml.adapters.kafka.source import KafkaSource
from streamml.errors import SourceUnavailable
from streamml.ops.embedded.kafka import EmbeddedKafka
from tests.conformance.grounds import Ground, KafkaGround, Member, MemoryGround, closed_port
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
