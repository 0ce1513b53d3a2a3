"""The client's messages as runs of records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

import numpy as np
from confluent_kafka import Message

from streamml.adapters.kafka.client import headers_of
from streamml.batch.column import object_array
from streamml.ports.source import RawRecord, RecordRun, TopicPartition

_second: Final = itemgetter(1)


def runs_of(messages: Sequence[Any], *, keys: bool, headers: bool) -> list[RecordRun]:
    """A run for each partition, in the order in which the client gave the messages, none of which is an error.

    Args:
        keys, headers: whether runs carry these columns.
    """
    groups: dict[tuple[Any, Any], list[Message]] = defaultdict(list)
    wheres = zip(map(Message.topic, messages), map(Message.partition, messages), strict=True)
    for where, message in zip(wheres, messages, strict=True):
        groups[where].append(message)
    return [_run(TopicPartition(*where), those, keys, headers) for where, those in groups.items()]


def _run(partition: TopicPartition, messages: list[Message], with_keys: bool, with_headers: bool) -> RecordRun:
    count = len(messages)
    values = list(map(Message.value, messages))
    keys = list(map(Message.key, messages)) if with_keys else []
    return RecordRun(
        partition=partition,
        offsets=np.fromiter(map(Message.offset, messages), np.int64, count),
        timestamps=np.fromiter(map(_second, map(Message.timestamp, messages)), np.int64, count),
        values=object_array(values, count),
        keys=object_array(keys, count) if with_keys else None,
        headers=object_array(map(headers_of, messages), count) if with_headers else None,
        size_bytes=sum(map(len, filter(None, values))) + sum(map(len, filter(None, keys))),
        records=_Messages(messages),
    )


class _Messages:
    """The client's messages as raw records."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages

    def __getitem__(self, index: int, /) -> RawRecord:
        message = self._messages[index]
        return RawRecord(message.key(), message.value(), headers_of(message), message.timestamp()[1])
