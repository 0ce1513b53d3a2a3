"""Asks the leader of a partition where its records begin, end, and are of a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

_AGAIN_S: Final = 0.02
_NOT_LEADING_YET: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)
T = TypeVar("T")


def bounds_of(consumer: Consumer, place: ClientPartition, timeout_s: float) -> tuple[int, int]:
    """First offset of a partition that is there, and the one behind its last.

    Raises:
        KafkaException: nobody answers, or nobody leads the partition.
    """
    return by_leader(partial(consumer.get_watermark_offsets, place, timeout=timeout_s), timeout_s)


def offsets_of_times(consumer: Consumer, places: list[ClientPartition], timeout_s: float) -> list[ClientPartition]:
    """Of each partition the first record of a time or later.

    Args:
        places: their offsets are times, in ms since 1970 UTC.

    Returns:
        Offsets; `confluent_kafka.OFFSET_END` where there is none.

    Raises:
        KafkaException: nobody answers, or nobody leads a partition.
    """
    return by_leader(partial(consumer.offsets_for_times, places, timeout=timeout_s), timeout_s)


def by_leader(ask: Callable[[], T], patience_s: float) -> T:
    """What a leader answers. One that leads a partition since a moment ago, as of a new topic, may not know it yet, and is asked again.

    Args:
        ask: raises `KafkaException` where the answer is an error.
        patience_s: how long a leader may go on not knowing that it is one.

    Raises:
        KafkaException: as ``ask``.
    """
    ends = time.monotonic() + patience_s
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _NOT_LEADING_YET or time.monotonic() > ends:
                raise
            time.sleep(_AGAIN_S)
