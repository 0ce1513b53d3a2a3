"""Reads records of a topic outside of any group: a sample, or all that is there now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as ClientPartition

from streamml.adapters.kafka.client import Trouble, error_of, headers_of, list_topics, opened, translated
from streamml.errors import FatalError, SourceUnavailable, TopologyError
from streamml.ports.source import RawRecord, TopicPartition

_TIMEOUT_S: Final = 10.0
OUTSIDE_OF_GROUPS: Final = {
    # The client wants a name; nothing is ever asked of the group.
    "group.id": "streamml-tail",
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "enable.partition.eof": True,
    "fetch.queue.backoff.ms": 10,
}
"""Properties of a consumer that is assigned its partitions and commits nothing."""


class Located(NamedTuple):
    """A record and where it is."""

    partition: TopicPartition
    offset: int
    record: RawRecord


def read_topic(client: Mapping[str, Any], topic: str, *, last: int | None = None) -> Iterator[Located]:
    """Records that the topic holds now, partitions one after the other as they arrive.

    Args:
        client: librdkafka properties.
        last: only so many offsets at the end of each partition; ``None``: all.

    Raises:
        TopologyError: there is no such topic.
        SourceUnavailable: the broker does not answer.
        FatalError: the broker refuses the login, or this client may not read the topic.
    """
    trouble = Trouble()
    consumer: Any = opened(Consumer, {**client, **OUTSIDE_OF_GROUPS}, trouble)
    try:
        with translated(str(client.get("bootstrap.servers")), trouble):
            open_partitions = _assign(consumer, trouble, topic, last)
        while open_partitions:
            with translated(trouble=trouble):
                first = consumer.poll(_TIMEOUT_S)
                if first is None:
                    raise SourceUnavailable(f"Reading {topic} stopped: the broker sent nothing for {_TIMEOUT_S:.0f} s.")
                # Alone, consume would wait until so many are there, or for its whole timeout.
                messages = [first, *consumer.consume(1000, 0)]
            for message in messages:
                if message.error() is not None:
                    _end_or_raise(message, open_partitions)
                elif message.partition() in open_partitions:
                    yield _located(message)
                    if message.offset() + 1 >= open_partitions[message.partition()]:
                        del open_partitions[message.partition()]
    finally:
        consumer.close()


def _assign(consumer: Any, trouble: Trouble, topic: str, last: int | None) -> dict[int, int]:
    """Assign what is to be read; returns the end of each partition that has something."""
    found = list_topics(consumer, trouble, _TIMEOUT_S, topic).topics[topic]
    if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise may_not_read(topic)
    if found.error is not None:
        raise TopologyError(f"The broker has no topic {topic!r}; `streamml topics create` makes those of a topology.")
    ends: dict[int, int] = {}
    starts: list[ClientPartition] = []
    for number in found.partitions:
        low, high = consumer.get_watermark_offsets(ClientPartition(topic, number), timeout=_TIMEOUT_S)
        start = low if last is None else max(low, high - last)
        if start < high:
            ends[number] = high
            starts.append(ClientPartition(topic, number, start))
    consumer.assign(starts)
    return ends


def _end_or_raise(message: Any, open_partitions: dict[int, int]) -> None:
    error = message.error()
    if error.code() == KafkaError._PARTITION_EOF:
        open_partitions.pop(message.partition(), None)
    elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise may_not_read(topic=message.topic())
    elif message.topic() is not None:
        raise error_of(error)
    # The rest is about the client, although its partition reads 0: that it may not use the group, which nothing here does,
    # or a connection that is lost; if it stays lost, nothing comes any more.


def may_not_read(topic: str) -> FatalError:
    """The error of a client that lacks the right."""
    return FatalError(
        f"The broker does not let this client see or read the topic {topic!r}; grant it the rights DESCRIBE and READ, as "
        "`streamml acls` prints them."
    )


def _located(message: Any) -> Located:
    record = RawRecord(message.key(), message.value(), headers_of(message), message.timestamp()[1])
    return Located(TopicPartition(message.topic(), message.partition()), message.offset(), record)
