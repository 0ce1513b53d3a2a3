"""The brokers that sources and sinks are held to their ports on."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

import psutil
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.adapters.kafka.sink import KafkaSink
from streamml.adapters.kafka.source import KafkaSource
from streamml.adapters.kafka.tail import read_topic
from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.sink import MemorySink
from streamml.adapters.memory.source import MemorySource
from streamml.errors import SourceUnavailable
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ports.sink import Sink
from streamml.ports.source import Positions, RawRecord, RecordRun, Source, SourceListener, TopicPartition

DEADLINE_S = 40.0


class Ground(Protocol):
    """A broker with topics and a group of one test's own.

    ``expel`` ends the membership of the first source as a session timeout does, while ``other`` goes on.
    """

    topic: str
    group: str

    def create(self, topic: str, partitions: int, max_bytes: int = 1_000_000) -> None: ...
    def add_partition(self) -> None: ...
    def append(self, record: RawRecord, partition: int) -> None: ...
    def records(self, topic: str) -> list[tuple[int, RawRecord]]: ...
    def delete_before(self, offset: int, partition: int) -> None: ...
    def expel(self, source: Member, other: Member) -> None: ...
    def outage(self) -> Any: ...
    def sink(self) -> Sink: ...
    def source(
        self,
        *,
        start: Literal["earliest", "latest"] = "earliest",
        topics: Sequence[str] = (),
        identity: str | None = None,
        keys: bool = True,
        headers: bool = True,
    ) -> Source: ...


@dataclass
class Member(SourceListener):
    """A source, and what it has heard and read."""

    source: Source
    heard: list[tuple[str, dict[TopicPartition, int]]] = field(default_factory=list)
    runs: list[RecordRun] = field(default_factory=list)
    owned: set[TopicPartition] = field(default_factory=set)
    answer: Callable[[Sequence[TopicPartition]], Positions] = lambda partitions: {}

    def assigned(self, positions: Positions) -> None:
        self.heard.append(("assigned", dict(positions)))
        self.owned |= set(positions)

    def revoking(self, partitions: Sequence[TopicPartition]) -> Positions:
        self.heard.append(("revoking", dict.fromkeys(partitions, -1)))
        self.owned -= set(partitions)
        return self.answer(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.heard.append(("lost", dict.fromkeys(partitions, -1)))
        self.owned -= set(partitions)

    def starts(self) -> dict[TopicPartition, int]:
        """First offset of everything that was ever assigned."""
        return {where: at for what, positions in self.heard if what == "assigned" for where, at in positions.items()}

    def told(self, what: str) -> set[TopicPartition]:
        return {where for kind, positions in self.heard if kind == what for where in positions}

    def poll(self, max_rows: int = 1000, timeout_s: float = 0.1) -> list[RecordRun]:
        """Poll once; a broker that does not answer now is none of the suite's concern."""
        try:
            runs = self.source.poll(max_rows, timeout_s)
        except SourceUnavailable:
            return []
        self.runs += runs
        return runs

    def values(self) -> list[bytes | None]:
        return [value for run in self.runs for value in run.values]

    def where(self) -> list[tuple[int, int]]:
        """Partition and offset of everything read."""
        return [(run.partition.partition, int(offset)) for run in self.runs for offset in run.offsets]


def until(met: Callable[[], Any], *members: Member) -> None:
    """Poll the members in turn until ``met``."""
    end = time.monotonic() + DEADLINE_S
    while not met():
        assert time.monotonic() < end, f"waited {DEADLINE_S:.0f} s in vain; heard {[one.heard for one in members]}"
        for member in members:
            member.poll()


@contextmanager
def joined(source: Source) -> Iterator[Member]:
    """The source as an open member, closed at the end."""
    member = Member(source)
    source.open(member)
    try:
        yield member
    finally:
        source.close()


def _fresh(part: str) -> str:
    return f"{part}-{uuid.uuid4().hex[:8]}"


class MemoryGround:
    """The broker in this process."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.topic, self.group = "events", "group"

    def create(self, topic: str, partitions: int, max_bytes: int = 1_000_000) -> None:
        self.broker.create_topic(topic, partitions=partitions, max_record_bytes=max_bytes)

    def add_partition(self) -> None:
        self.broker.add_partitions(self.topic, 1)

    def append(self, record: RawRecord, partition: int) -> None:
        self.broker.append(
            self.topic,
            record.value,
            key=record.key,
            headers=record.headers,
            timestamp=record.timestamp,
            partition=partition,
        )

    def records(self, topic: str) -> list[tuple[int, RawRecord]]:
        return [
            (one.where.partition, RawRecord(one.key, one.value, one.headers, one.timestamp))
            for one in self.broker.records(topic)
        ]

    def delete_before(self, offset: int, partition: int) -> None:
        self.broker.delete_before(self.topic, offset, partition=partition)

    def expel(self, source: Member, other: Member) -> None:
        self.broker.expel(source.source)
        until(lambda: len(other.owned) == 2, other)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.broker.fail("The broker is away.")
        yield
        self.broker.recover()

    def sink(self) -> MemorySink:
        return MemorySink(self.broker)

    def source(
        self,
        *,
        start: Literal["earliest", "latest"] = "earliest",
        topics: Sequence[str] = (),
        identity: str | None = None,
        keys: bool = True,
        headers: bool = True,
    ) -> MemorySource:
        return MemorySource(
            self.broker,
            topics or [self.topic],
            self.group,
            start,
            identity=identity,
            keys=keys,
            headers=headers,
        )


class KafkaGround:
    """Real Kafka. Times are short, so that rebalances and timeouts come quickly."""

    def __init__(self, broker: EmbeddedKafka, protocol: Literal["classic", "consumer"] = "classic") -> None:
        self._protocol = protocol
        self._broker = broker
        self.client: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers}
        self._admin = AdminClient(self.client)
        self._producer = Producer({**self.client, "linger.ms": 0})
        self.topic, self.group = _fresh("events"), _fresh("group")
        if protocol == "consumer":
            self._hurry()

    def _hurry(self) -> None:
        """With the new protocol the times of a session are the group's, on the broker."""
        times = {"consumer.heartbeat.interval.ms": "100", "consumer.session.timeout.ms": "2000"}
        wanted = [ConfigEntry(name, to, incremental_operation=AlterConfigOpType.SET) for name, to in times.items()]
        group = ConfigResource(ResourceType.GROUP, self.group, incremental_configs=wanted)
        self._admin.incremental_alter_configs([group])[group].result()

    def create(self, topic: str, partitions: int, max_bytes: int = 1_000_000) -> None:
        KafkaAdmin(self.client).create([NewTopicPlan(topic, partitions, 1, {"max.message.bytes": str(max_bytes)})])

    def add_partition(self) -> None:
        count = KafkaAdmin(self.client).topics([self.topic])[self.topic].partitions
        self._admin.create_partitions([NewPartitions(self.topic, count + 1)])[self.topic].result()

    def append(self, record: RawRecord, partition: int) -> None:
        self._producer.produce(
            self.topic,
            record.value,
            record.key,
            partition,
            timestamp=record.timestamp,
            headers=cast(Any, record.headers),
        )
        assert self._producer.flush(30) == 0

    def records(self, topic: str) -> list[tuple[int, RawRecord]]:
        return [(one.partition.partition, one.record) for one in read_topic(self.client, topic)]

    def delete_before(self, offset: int, partition: int) -> None:
        to = ClientPartition(self.topic, partition, offset)
        for deleted in self._admin.delete_records([to]).values():
            deleted.result()

    def expel(self, source: Member, other: Member) -> None:
        until(lambda: len(other.owned) == 2, other)

    @contextmanager
    def outage(self) -> Iterator[None]:
        assert self._broker.pid is not None
        process = psutil.Process(self._broker.pid)
        process.suspend()
        try:
            while process.status() != psutil.STATUS_STOPPED:
                pass
            yield
        finally:
            process.resume()

    def sink(self) -> KafkaSink:
        return KafkaSink({**self.client, "batch.size": 10_000})

    def source(
        self,
        *,
        start: Literal["earliest", "latest"] = "earliest",
        topics: Sequence[str] = (),
        identity: str | None = None,
        keys: bool = True,
        headers: bool = True,
    ) -> KafkaSource:
        times: dict[str, Any] = {
            "topic.metadata.refresh.interval.ms": 300,
            "max.poll.interval.ms": 3_000,
            "group.protocol": self._protocol,
        }
        if self._protocol == "classic":
            times |= {"heartbeat.interval.ms": 100, "session.timeout.ms": 3_000}
        named = {"group.instance.id": identity} if identity is not None else {}
        config = {**self.client, **times, **named}
        return KafkaSource(topics or [self.topic], self.group, start, config, keys=keys, headers=headers)


def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
