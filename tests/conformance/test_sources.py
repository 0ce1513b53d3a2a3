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
from streamml.errors import FatalError, OffsetOutOfRange, SourceUnavailable
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ports.source import RawRecord, TopicPartition
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


@pytest.mark.integration
class TestKafkaNewProtocol(SourceBehaviours):
    """A member by the new rebalance protocol (KIP-848) keeps the same promises."""

    @pytest.fixture
    def empty_ground(self, kafka: EmbeddedKafka) -> Ground:
        return KafkaGround(kafka, "consumer")

    def test_the_second_owner_of_an_identity_fences_the_first(self, ground: Ground) -> None:
        """Here it is the second that may not join, before the session of the first has ended: workers have no identity."""
        with joined(ground.source(identity="one")) as first:
            until(lambda: len(first.owned) == 2, first)
            with joined(ground.source(identity="one")) as second, pytest.raises(FatalError, match="still used"):
                until(lambda: False, first, second)


@pytest.mark.integration
def test_kafka_a_group_of_the_new_protocol_says_when_it_gives_members_up(kafka: EmbeddedKafka) -> None:
    """D6.5."""
    hurried, usual = KafkaGround(kafka, "consumer"), KafkaGround(kafka)
    admin = KafkaAdmin(usual.client)
    assert [admin.group_session_ms(one.group) for one in (hurried, usual)] == [2_000, 10_000]


def test_memory_open_says_that_the_broker_is_away() -> None:
    ground = MemoryGround()
    ground.create(ground.topic, 1)
    with ground.outage(), pytest.raises(SourceUnavailable, match="away"):
        ground.source().open(Member(ground.source()))


def test_kafka_open_says_that_the_broker_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamml.adapters.kafka.source.TIMEOUT_S", 0.5)
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
    assert source._reading._records(given) == [given[0], given[2]]
    with pytest.raises(SourceUnavailable):
        source.poll(10, 0.0)
    assert source.poll(10, 0.0) == []
    source.close()


@pytest.mark.integration
def test_kafka_d7_a_position_that_the_broker_does_not_have_is_told_with_what_to_do(kafka: EmbeddedKafka) -> None:
    """D7.2."""
    ground = KafkaGround(kafka)
    ground.create(ground.topic, 1)
    place = TopicPartition(ground.topic, 0)
    for _ in range(5):
        ground.append(RawRecord(None, b"value", [], 1000), 0)
    ground.delete_before(3, 0)
    probe = ground.source()
    for position, words in ((1, "offset 1 .* the first one there is 3: .*2 records"), (9, "offset 9 .* ends at 5")):
        probe.commit({place: position}, wait=True)
        with joined(ground.source()) as member, pytest.raises(OffsetOutOfRange, match=words) as told:
            until(lambda: False, member)
        assert f"offsets reset TOPOLOGY --partition {ground.topic}/0 --to" in str(told.value)
        assert member.values() == []
        until(lambda: not KafkaAdmin(ground.client).group_members(ground.group))
    probe.close()


@pytest.mark.integration
def test_kafka_d7_a_partition_that_was_added_stops_the_worker_where_the_source_says_so(kafka: EmbeddedKafka) -> None:
    """D1.4."""
    ground = KafkaGround(kafka)
    ground.create(ground.topic, 1)
    refresh = {**ground.client, "topic.metadata.refresh.interval.ms": 300}
    source = KafkaSource([ground.topic], ground.group, "earliest", refresh, partitions_added="stop")
    with joined(source) as member:
        until(lambda: len(member.owned) == 1, member)
        ground.add_partition()
        with pytest.raises(FatalError, match=rf"{ground.topic}\[1\] was added"):
            until(lambda: False, member)
    with joined(KafkaSource([ground.topic], ground.group, "earliest", refresh)) as member:
        until(lambda: len(member.owned) == 2, member)


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
