"""Reads records of a topic outside of any group, one by one: a sample, or all that is there now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from streamml.adapters.kafka.chunks import Stretch, read_chunks
from streamml.ports.source import RawRecord, TopicPartition


class Located(NamedTuple):
    """A record and where it is."""

    partition: TopicPartition
    offset: int
    record: RawRecord


def read_topic(client: Mapping[str, Any], topic: str, *, last: int | None = None) -> Iterator[Located]:
    """Records that the topic holds now, each partition's in order.

    Args:
        client: librdkafka properties.
        last: only so many offsets at the end of each partition; ``None``: all.

    Raises:
        TopologyError, SourceUnavailable, FatalError: as `read_chunks`.
    """
    for chunk in read_chunks(client, topic, Stretch(last=last)):
        numbers = (chunk.partitions().tolist(), chunk.offsets().tolist(), chunk.timestamps().tolist())
        for partition, offset, at, key, value, headers in zip(
            *numbers, chunk.keys(), chunk.values(), chunk.headers(), strict=True
        ):
            yield Located(TopicPartition(topic, partition), offset, RawRecord(key, value, headers, at))
