"""Asks where a group is, again and again, and through outages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ClientPartition

from streamml.adapters.kafka.bounds import bounds_of
from streamml.adapters.kafka.client import opened, translated
from streamml.adapters.kafka.membership import anonymous, member_properties
from streamml.ports.source import TopicPartition

_TIMEOUT_S: Final = 10.0


class GroupProbe:
    """A client of a group that never joins it. Every call waits for its answer, at most ten seconds.

    The admin client asks the same for others; but where its question to a coordinator runs out of time in an outage, the
    broker's return aborts the whole process (librdkafka issues 4605 and 3663, observed with 2.16).
    """

    def __init__(self, client: Mapping[str, Any], group: str) -> None:
        """
        Args:
            client: librdkafka properties of a consumer, ``bootstrap.servers`` at least.
        """
        self._asking = translated(str(client.get("bootstrap.servers")), met=True)
        self._consumer: Any = opened(Consumer, anonymous(member_properties(client, group)))

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Positions of the group, as no transaction holds them any more; partitions without one are absent.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        with self._asking:
            found = self._consumer.committed([ClientPartition(*where) for where in partitions], timeout=_TIMEOUT_S)
        return {TopicPartition(one.topic, one.partition): one.offset for one in found if one.offset >= 0}

    def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Next offset to be written.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        with self._asking:
            return {where: bounds_of(self._consumer, ClientPartition(*where), _TIMEOUT_S)[1] for where in partitions}

    def close(self) -> None:
        self._consumer.close()
