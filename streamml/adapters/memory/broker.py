"""A broker in this process: topics, groups, and faults on purpose. For tests of one's own, with or without threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from zlib import crc32

from streamml.adapters.memory.group import Group
from streamml.clock import Clock, SystemClock
from streamml.errors import ConfigError, FatalError, OffsetOutOfRange
from streamml.ports.control import GroupState
from streamml.ports.source import Headers, RawRecord, TopicPartition

RefusalOf = Callable[[str, RawRecord], str | None]


@dataclass(frozen=True, slots=True)
class StoredRecord(RawRecord):
    """A record in its topic.

    Args:
        where: its partition.
        offset: its place in there.
    """

    where: TopicPartition
    offset: int


@dataclass(slots=True)
class _Log:
    """One partition; ``start`` is its lowest offset."""

    start: int = 0
    records: list[StoredRecord] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.start + len(self.records)


@dataclass(slots=True)
class _Topic:
    max_record_bytes: int
    logs: list[_Log]
    appended: int = 0


class MemoryBroker:
    """Topics with partitions, and consumer groups; `MemorySource`, `MemorySink` and `MemoryControl` are its clients.

    Safe to share between threads. A record's partition follows from its key; records without one take turns.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """
        Args:
            clock: gives the time to records that come without.
        """
        self._clock = clock or SystemClock()
        self._topics: dict[str, _Topic] = {}
        self._groups: dict[str, Group] = {}
        self._changed = threading.Condition(threading.RLock())
        self._down: str | None = None
        self._refusal_of: RefusalOf = lambda topic, record: None

    # -- topics ------------------------------------------------------------------------------------------------------

    def create_topic(self, name: str, *, partitions: int = 1, max_record_bytes: int = 1_000_000) -> None:
        """Make a topic.

        Args:
            max_record_bytes: a record whose key and value are larger is refused.

        Raises:
            ConfigError: there is one of that name, or it would have no partition.
        """
        if name in self._topics or partitions < 1:
            problem = f"has {partitions} partitions" if name not in self._topics else "is there already"
            raise ConfigError(f"The topic {name!r} {problem}; make each topic once, with at least one partition.")
        with self._changed:
            self._topics[name] = _Topic(max_record_bytes, [_Log() for _ in range(partitions)])

    def add_partitions(self, name: str, count: int) -> None:
        """Give a topic ``count`` further partitions.

        Raises:
            ConfigError: there is no such topic.
        """
        with self._changed:
            self._topic(name).logs.extend(_Log() for _ in range(count))
            self._changed.notify_all()

    def append(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers | None = None,
        timestamp: int | None = None,
        partition: int | None = None,
    ) -> StoredRecord:
        """Write one record as a producer would; faults do not hinder it.

        Args:
            timestamp: ms since 1970 UTC; ``None``: now.

        Raises:
            ConfigError: topic or partition is not there, or the record is too large for it.
        """
        now = int(self._clock.now() * 1000) if timestamp is None else timestamp
        record = RawRecord(key, value, list(headers or []), now)
        with self._changed:
            size = len(key or b"") + len(value or b"")
            if size > self._topic(topic).max_record_bytes:
                raise ConfigError(
                    f"A record of {size} bytes is too large for {topic}; raise the topic's max_record_bytes."
                )
            return self.store(topic, record, partition)

    def records(self, topic: str) -> list[StoredRecord]:
        """All records of a topic, partition by partition.

        Raises:
            ConfigError: there is no such topic.
        """
        with self._changed:
            return [record for log in self._topic(topic).logs for record in log.records]

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Next offset per partition, as far as the group has committed."""
        with self._changed:
            return dict(self.group(group).committed)

    def group_state(self, group: str) -> GroupState:
        """Whether the group is paused, and why."""
        with self._changed:
            return self.group(group).state

    def tell_group(self, group: str, state: GroupState) -> None:
        """Have a group pause, or go on."""
        with self._changed:
            self.group(group).state = state
            listeners = list(self.group(group).listeners)
        for changed in listeners:
            changed(state)

    # -- faults ------------------------------------------------------------------------------------------------------

    def fail(self, reason: str) -> None:
        """Answer no client until `recover`."""
        with self._changed:
            self._down = reason
            self._changed.notify_all()

    def recover(self) -> None:
        """Answer again."""
        with self._changed:
            self._down = None
            self._changed.notify_all()

    def refuse(self, refusal_of: RefusalOf) -> None:
        """From now on refuse to take records from sinks where the function of topic and record gives a reason."""
        self._refusal_of = refusal_of

    def delete_before(self, topic: str, offset: int, *, partition: int = 0) -> None:
        """Delete records as retention does; who wants to read them gets `OffsetOutOfRange`."""
        with self._changed:
            log = self._log(TopicPartition(topic, partition))
            gone = min(max(offset - log.start, 0), len(log.records))
            log.start += gone
            del log.records[:gone]

    def expel(self, source: object) -> None:
        """End a source's membership as a session timeout does; it hears ``lost`` at its next poll, then joins again."""
        with self._changed:
            for group in self._groups.values():
                group.leave(source)
            self._changed.notify_all()

    # -- for its clients -----------------------------------------------------------------------------------------

    @property
    def down(self) -> str | None:
        """Why the broker does not answer; ``None`` while it does."""
        return self._down

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Nothing changes inside."""
        with self._changed:
            yield

    def changed(self) -> None:
        """Wake who waits."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, met: Callable[[], bool], timeout_s: float) -> None:
        """Wait until ``met``, which is asked at every change, at most ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(met, timeout_s)

    def group(self, name: str) -> Group:
        """The group of that name; it begins to exist when it is asked for."""
        return self._groups.setdefault(name, Group())

    def hear_of_group(self, group: str, changed: Callable[[GroupState], None]) -> GroupState:
        """The group's state; ``changed`` hears of every new one, until `leave_group_alone`."""
        with self._changed:
            self.group(group).listeners.append(changed)
            return self.group(group).state

    def leave_group_alone(self, group: str, changed: Callable[[GroupState], None]) -> None:
        """Tell ``changed`` nothing more."""
        with self._changed:
            self.group(group).listeners.remove(changed)

    def partitions(self, topics: Sequence[str]) -> list[TopicPartition]:
        """All partitions of the topics.

        Raises:
            FatalError: a topic is missing.
        """
        missing = [topic for topic in topics if topic not in self._topics]
        if missing:
            raise FatalError(f"The broker has no topic {', '.join(missing)}; create it, then start again.")
        return [TopicPartition(topic, n) for topic in topics for n in range(len(self._topics[topic].logs))]

    def marks(self, where: TopicPartition) -> tuple[int, int]:
        """Lowest offset, and next offset to be written."""
        log = self._log(where)
        return log.start, log.end

    def read(self, where: TopicPartition, offset: int, count: int) -> list[StoredRecord]:
        """At most ``count`` records from ``offset`` on.

        Raises:
            OffsetOutOfRange: records at ``offset`` were deleted.
        """
        log = self._log(where)
        if offset < log.start:
            raise OffsetOutOfRange(
                f"{where} begins at offset {log.start}, and the group is at {offset}: records were deleted before they "
                "were read. Reset the group's offsets, knowing what is skipped, then start again."
            )
        return log.records[offset - log.start : offset - log.start + count]

    def refusal_of(self, topic: str, record: RawRecord) -> str | None:
        """Why the broker will never take the record; ``None`` where it will."""
        if topic not in self._topics:
            return f"There is no topic {topic!r}."
        size, most = len(record.key or b"") + len(record.value or b""), self._topics[topic].max_record_bytes
        if size > most:
            return f"The record has {size} bytes, and {topic} takes {most} at most."
        return self._refusal_of(topic, record)

    def store(self, topic: str, record: RawRecord, partition: int | None = None) -> StoredRecord:
        """Write a record that is not refused."""
        found = self._topic(topic)
        if partition is None:
            turn = found.appended if record.key is None else crc32(record.key)
            partition = turn % len(found.logs)
        found.appended += 1
        where = TopicPartition(topic, partition)
        log = self._log(where)
        stored = StoredRecord(record.key, record.value, record.headers, record.timestamp, where, log.end)
        log.records.append(stored)
        self.changed()
        return stored

    def _topic(self, name: str) -> _Topic:
        if name not in self._topics:
            raise ConfigError(f"The broker has no topic {name!r}; make it by create_topic.")
        return self._topics[name]

    def _log(self, where: TopicPartition) -> _Log:
        logs = self._topic(where.topic).logs
        if not 0 <= where.partition < len(logs):
            raise ConfigError(f"There is no {where}; the topic has partitions 0 to {len(logs) - 1}.")
        return logs[where.partition]
