"""Reads a stretch of a topic outside of any group, a chunk of columns at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter
from typing import Any, Final, cast

import numpy as np
from confluent_kafka import OFFSET_END, TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, Message
from confluent_kafka import TopicPartition as ClientPartition

from streamml.adapters.kafka.bounds import bounds_of, offsets_of_times
from streamml.adapters.kafka.client import (
    OUTSIDE_OF_GROUPS,
    Trouble,
    error_of,
    headers_of,
    list_topics,
    opened,
    translated,
)
from streamml.batch.microbatch import Int
from streamml.errors import FatalError, SourceUnavailable, TopologyError
from streamml.ports.source import Headers

_TIMEOUT_S: Final = 10.0
_TURN_S: Final = 1.0
# Few, as what is fetched is bounded before it is decompressed.
_ROWS: Final = 500
_JOINED_ROWS: Final = 50_000
_JOINED_BYTES: Final = 32 * 1024**2
_READING: Final = {"queued.max.messages.kbytes": 32_768}


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is read of a topic; by default all that it holds now.

    Args:
        starts: first offset by partition; a partition that is not named is not read. ``None``: the first of each.
        ends: offset behind the last, by partition; ``None``: the end as it is when the reading begins.
        since_ms: begin each partition at its first record of this time or later; whatever stands before that is older.
            Only of a topic that keeps the times that producers give.
        last: only so many offsets at the end of each partition.
        uncommitted: records of transactions that have not ended, or were taken back, too: whatever is written by now.
    """

    starts: Mapping[int, int] | None = None
    ends: Mapping[int, int] | None = None
    since_ms: int | None = None
    last: int | None = None
    uncommitted: bool = False


class Chunk:
    """Records of one poll, of any partitions. A column is made when it is asked for, as most callers need only some."""

    def __init__(self, messages: list[Any]) -> None:
        self._messages = messages

    def __len__(self) -> int:
        return len(self._messages)

    def timestamps(self) -> Int:
        """``i8[n]``, ms since 1970 UTC."""
        return np.fromiter(map(itemgetter(1), map(Message.timestamp, self._messages)), np.int64, len(self))

    def append_times(self) -> bool:
        """Whether the times are those at which the broker wrote the records, and not their producers'."""
        return bool(self._messages) and self._messages[0].timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME

    def partitions(self) -> Int:
        """``i8[n]``."""
        return np.fromiter(map(Message.partition, self._messages), np.int64, len(self))

    def offsets(self) -> Int:
        """``i8[n]``."""
        return np.fromiter(map(Message.offset, self._messages), np.int64, len(self))

    def keys(self) -> list[Any]:
        """``bytes`` or ``None``."""
        return list(map(Message.key, self._messages))

    def values(self) -> list[Any]:
        """``bytes``, or ``None`` of a tombstone."""
        return list(map(Message.value, self._messages))

    def headers(self) -> list[Headers]:
        try:
            found = [one or [] for one in map(Message.headers, self._messages)]
            return cast("list[Headers]", found)
        except (SystemError, UnicodeDecodeError):
            return list(map(headers_of, self._messages))

    def size_bytes(self) -> int:
        """Of all values."""
        return sum(map(len, filter(None, map(Message.value, self._messages))))

    @staticmethod
    def join(chunks: Iterable[Chunk]) -> Chunk:
        """One after the other."""
        return Chunk([message for chunk in chunks for message in chunk._messages])

    def pieces(self, rows: int) -> Iterator[Chunk]:
        """The same in order, at most so many rows each."""
        return (Chunk(self._messages[start : start + rows]) for start in range(0, len(self), rows))

    def where(self, chosen: Any) -> Chunk:
        """Those rows that ``chosen`` (``bool[n]``) is true for."""
        return Chunk(list(compress(self._messages, chosen.tolist())))


def joined(chunks: Iterable[Chunk], most_rows: int = _JOINED_ROWS) -> Iterator[Chunk]:
    """The same records in fewer chunks, as each use of one has its price; bounded in rows and bytes, but for the last of each."""
    held: list[Chunk] = []
    rows = size = 0
    for chunk in chunks:
        held.append(chunk)
        rows, size = rows + len(chunk), size + chunk.size_bytes()
        if rows >= most_rows or size >= _JOINED_BYTES:
            yield Chunk.join(held)
            held, rows, size = [], 0, 0
    if held:
        yield Chunk.join(held)


def read_chunks(client: Mapping[str, Any], topic: str, stretch: Stretch | None = None) -> Iterator[Chunk]:
    """The records of a stretch, each partition's in order.

    Args:
        client: librdkafka properties of a consumer.

    Raises:
        TopologyError: there is no such topic.
        SourceUnavailable: the broker does not answer.
        FatalError: the broker refuses the login, this client may not read the topic, or records went away meanwhile.
    """
    trouble, stretch = Trouble(), stretch or Stretch()
    isolation = "read_uncommitted" if stretch.uncommitted else "read_committed"
    properties = {**_READING, **client, **OUTSIDE_OF_GROUPS, "auto.offset.reset": "error", "isolation.level": isolation}
    consumer: Any = opened(Consumer, properties, trouble)
    try:
        with translated(str(client.get("bootstrap.servers")), trouble):
            ends = _assign(consumer, trouble, topic, stretch)
        while ends:
            with translated(trouble=trouble):
                messages = _polled(consumer, topic)
            fine = [one for one in messages if one.error() is None]
            if fine:
                # Before the ends are looked at: that of a partition comes behind its last records.
                yield from _inside(fine, ends)
            if len(fine) < len(messages):
                for one in messages:
                    if one.error() is not None:
                        _end_or_raise(one, topic, ends)
    finally:
        consumer.close()


def _polled(consumer: Any, topic: str) -> list[Any]:
    for _ in range(round(_TIMEOUT_S / _TURN_S)):
        first = consumer.poll(_TURN_S)
        if first is not None:
            # Alone, consume would wait until so many are there, or for its whole timeout.
            return [first, *consumer.consume(_ROWS, 0)]
    raise SourceUnavailable(f"Reading {topic} stopped: the broker sent nothing for {_TIMEOUT_S:.0f} s.")


def _inside(messages: list[Any], ends: dict[int, int]) -> Iterator[Chunk]:
    """What of the messages is before the ends; partitions that have reached theirs are taken out of ``ends``."""
    chunk = Chunk(messages)
    partitions, offsets = chunk.partitions(), chunk.offsets()
    size = int(partitions.max()) + 1
    # Of a partition that has ended, nothing is inside.
    limits = np.zeros(size, np.int64)
    for number, end in ends.items():
        if number < size:
            limits[number] = end
    inside = offsets < limits[partitions]
    for number in np.unique(partitions).tolist():
        if number in ends and offsets[partitions == number].max() + 1 >= ends[number]:
            del ends[number]
    if inside.all():
        yield chunk
    elif inside.any():
        yield chunk.where(inside)


def _assign(consumer: Any, trouble: Trouble, topic: str, stretch: Stretch) -> dict[int, int]:
    """Assign what is to be read; returns the end of each partition that has something."""
    found = list_topics(consumer, trouble, _TIMEOUT_S, topic).topics[topic]
    if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise _may_not_read(topic)
    if found.error is not None:
        raise TopologyError(
            f"The broker has no topic {topic!r}: it was deleted, or never made (`streamml topics create` makes those of a topology), "
            "or --brokers names another cluster."
        )
    firsts = _first_of_time(consumer, topic, found.partitions, stretch.since_ms)
    ends: dict[int, int] = {}
    starts: list[ClientPartition] = []
    for number in found.partitions:
        if stretch.starts is not None and number not in stretch.starts:
            continue
        low, high = bounds_of(consumer, ClientPartition(topic, number), _TIMEOUT_S)
        start = max(low, (stretch.starts or {}).get(number, low), firsts.get(number, low))
        start = start if stretch.last is None else max(start, high - stretch.last)
        end = high if stretch.ends is None else min(high, stretch.ends.get(number, high))
        if start < end:
            ends[number] = end
            starts.append(ClientPartition(topic, number, start))
    consumer.assign(starts)
    return ends


def _first_of_time(consumer: Any, topic: str, partitions: Any, since_ms: int | None) -> dict[int, int]:
    if since_ms is None:
        return {}
    asked = [ClientPartition(topic, number, max(0, since_ms)) for number in partitions]
    found = offsets_of_times(consumer, asked, _TIMEOUT_S)
    none = np.iinfo(np.int64).max
    return {one.partition: none if one.offset == OFFSET_END else one.offset for one in found}


def _end_or_raise(message: Any, topic: str, ends: dict[int, int]) -> None:
    error = message.error()
    if error.code() == KafkaError._PARTITION_EOF:
        ends.pop(message.partition(), None)
    elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise _may_not_read(topic)
    elif error.code() == KafkaError._AUTO_OFFSET_RESET:
        raise FatalError(
            f"Partition {message.partition()} of {topic} lost records to retention while it was read; try again."
        )
    elif message.topic() is not None:
        raise error_of(error)
    # The rest is about the client, although its partition reads 0: that it may not use the group, which nothing here does,
    # or a connection that is lost; if it stays lost, nothing comes any more.


def _may_not_read(topic: str) -> FatalError:
    """The error of a client that lacks the right."""
    return FatalError(
        f"The broker does not let this client see or read the topic {topic!r}; grant it the rights DESCRIBE and READ, as "
        "`streamml acls` prints them."
    )
