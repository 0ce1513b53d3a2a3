"""Sources obey their port; what is true of one adapter only is below."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.source import KafkaSource
from streamml.errors import FatalError, SourceUnavailable
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ports.source import TopicPartition
from tests.conformance.grounds import DEADLINE_S, Ground, KafkaGround, Member, MemoryGround, closed_port, joined, until
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
    """D1.5."""
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


def _made_anew(ground: KafkaGround, admin: AdminClient, partitions: int) -> None:
    admin.delete_topics([ground.topic])[ground.topic].result()
    end = time.monotonic() + DEADLINE_S
    while ground.topic in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < end
    ground.create(ground.topic, partitions)


@pytest.mark.integration
def test_kafka_d7_a_topic_that_is_made_anew_is_told_while_running_and_at_the_next_start(kafka: EmbeddedKafka) -> None:
    """D7.3."""
    ground = KafkaGround(kafka)
    ground.create(ground.topic, 2)
    client: dict[str, str | int | float | bool] = {"bootstrap.servers": kafka.bootstrap_servers}

    def source() -> KafkaSource:
        ids = {ground.topic: KafkaAdmin(client).topics([ground.topic])[ground.topic].id}
        return KafkaSource([ground.topic], ground.group, "earliest", client, topic_ids=ids)

    with joined(source()) as member:
        until(lambda: len(member.owned) == 2, member)
        member.source.commit(dict.fromkeys(member.owned, 0), wait=True)
        _made_anew(ground, AdminClient(client), 2)
        # As a worker does that has not heard of it yet.
        member.source.commit(dict.fromkeys(member.owned, 3), wait=True)
        with pytest.raises(FatalError, match=ground.topic):
            until(lambda: False, member)
    with joined(source()) as member, pytest.raises(FatalError, match="earlier topic"):
        until(lambda: False, member)


@pytest.mark.integration
def test_kafka_d6_partitions_that_a_killed_static_member_left_to_nobody_are_shared_anew(kafka: EmbeddedKafka) -> None:
    """D6.4."""
    ground = KafkaGround(kafka)
    ground.create(ground.topic, 4)
    client = {"bootstrap.servers": kafka.bootstrap_servers}
    times = {**client, "heartbeat.interval.ms": 100, "session.timeout.ms": 20_000}

    def source(name: str) -> KafkaSource:
        return KafkaSource([ground.topic], ground.group, "earliest", {**times, "group.instance.id": name}, topic_ids={})

    arguments = [kafka.bootstrap_servers, ground.group, ground.topic, "a"]
    dying = subprocess.Popen([sys.executable, "-m", "tests.conformance.dying_member", *arguments])
    try:
        end = time.monotonic() + DEADLINE_S
        while not KafkaAdmin(client).group_is_stable(ground.group):
            assert time.monotonic() < end
        with joined(source("b")) as b:
            until(lambda: dying.poll() is not None, b)
            # Taken back without a rebalance, with what was left to it.
            with joined(source("a")) as a:
                until(lambda: len(a.owned) == len(b.owned) == 2, a, b)
                assert a.owned | b.owned == {(ground.topic, number) for number in range(4)}
    finally:
        dying.kill()
        dying.wait()
