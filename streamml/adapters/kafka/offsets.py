"""A group's positions seen and set from outside of the group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from streamml.adapters.kafka.bounds import by_leader
from streamml.adapters.kafka.client import Trouble, error_of, list_topics, opened, translated
from streamml.adapters.kafka.positions import marked
from streamml.errors import ConfigError
from streamml.ports.source import Positions, TopicPartition

_TIMEOUT_S: Final = 10.0
_ACTIVE: Final = (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP)


class Committed(NamedTuple):
    """A position as the group has it, and the id of the topic that it was committed for; empty where nobody said."""

    offset: int
    topic_id: str


def settled_positions(client: Mapping[str, Any], group: str) -> Callable[[Iterable[TopicPartition]], Positions]:
    """Asks for a group's positions in partitions, once no transaction holds them any more.

    The one that is asked raises `SourceUnavailable` where the broker does not answer or a transaction has not ended, and
    `FatalError` where it refuses this client.

    Args:
        client: librdkafka properties, ``bootstrap.servers`` at least.
    """

    def ask(partitions: Iterable[TopicPartition]) -> Positions:
        found = KafkaOffsets(client).committed(group, partitions, settled=True)
        return {where: one.offset for where, one in found.items()}

    return ask


class KafkaOffsets:
    """Asks and changes a broker. Every call waits for its answer, at most ten seconds.

    All of them raise `SourceUnavailable` where the broker does not answer, and `FatalError` where it refuses this client.
    """

    def __init__(self, client: Mapping[str, Any]) -> None:
        """
        Args:
            client: librdkafka properties, ``bootstrap.servers`` at least.

        Raises:
            SettingsError: a property is wrong.
        """
        self._trouble = Trouble()
        self._client: Any = opened(AdminClient, dict(client), self._trouble)
        self._brokers = str(client.get("bootstrap.servers"))
        self._asking = translated(self._brokers, self._trouble)

    def partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        """Those of the topics that exist."""
        with self._asking:
            known = list_topics(self._client, self._trouble, _TIMEOUT_S).topics
        return [TopicPartition(name, number) for name in topics if name in known for number in known[name].partitions]

    def committed(
        self, group: str, partitions: Iterable[TopicPartition], *, settled: bool = False
    ) -> dict[TopicPartition, Committed]:
        """Positions of a group; partitions without one are absent.

        Args:
            settled: of a partition whose position is in a transaction that has not ended, there is no answer.
        """
        asked = ConsumerGroupTopicPartitions(group, [ClientPartition(*where) for where in partitions])
        ask = partial(self._client.list_consumer_group_offsets, require_stable=settled, request_timeout=_TIMEOUT_S)
        with self._asking:
            (answer,) = ask([asked]).values()
            found = answer.result().topic_partitions
        for one in found:
            if one.error is not None:
                raise error_of(one.error, self._brokers)
        return {
            TopicPartition(one.topic, one.partition): Committed(one.offset, one.metadata or "")
            for one in found
            if one.offset >= 0
        }

    def bounds(
        self, partitions: Iterable[TopicPartition], *, settled: bool = False
    ) -> dict[TopicPartition, tuple[int, int]]:
        """First offset, and the next one to be written.

        Args:
            settled: the second one is where the first transaction begins that has not ended, where there is one.
        """
        places = list(partitions)
        spec: Any = OffsetSpec
        low, high = self._found(places, spec.earliest()), self._found(places, spec.latest(), settled=settled)
        return {where: (low[where][0], high[where][0]) for where in places}

    def at(self, partitions: Iterable[TopicPartition], timestamp: int) -> dict[TopicPartition, int]:
        """Offset of the first record with this timestamp or a later one, in ms since 1970 UTC; -1 where there is none."""
        return {where: offset for where, (offset, _) in self.first_at(partitions, timestamp).items()}

    def first_at(self, partitions: Iterable[TopicPartition], timestamp: int) -> dict[TopicPartition, tuple[int, int]]:
        """The same with that record's own timestamp."""
        return self._found(list(partitions), OffsetSpec.for_timestamp(timestamp))

    def commit(self, group: str, positions: Positions, topic_ids: Mapping[str, str]) -> None:
        """Set positions of a group that nobody is a member of.

        Raises:
            ConfigError: somebody is; nothing was set.
        """
        asked = ConsumerGroupTopicPartitions(group, marked(positions, topic_ids))
        with self._asking:
            (answer,) = self._client.alter_consumer_group_offsets([asked], request_timeout=_TIMEOUT_S).values()
            try:
                errors = [one.error for one in answer.result().topic_partitions if one.error is not None]
            except KafkaException as error:
                errors = [error.args[0]]
        if any(error.code() in _ACTIVE for error in errors):
            raise ConfigError(f"Group {group} has members again; stop its workers first. Nothing was set.")
        if errors:
            raise error_of(errors[0], self._brokers)

    def _found(
        self, partitions: list[TopicPartition], spec: OffsetSpec, *, settled: bool = False
    ) -> dict[TopicPartition, tuple[int, int]]:
        """Offset and timestamp."""
        asked = {ClientPartition(*where): spec for where in partitions}
        if not asked:
            return {}
        level = IsolationLevel.READ_COMMITTED if settled else IsolationLevel.READ_UNCOMMITTED

        def ask() -> dict[ClientPartition, Any]:
            answers = self._client.list_offsets(asked, isolation_level=level, request_timeout=_TIMEOUT_S)
            return {where: answer.result() for where, answer in answers.items()}

        with self._asking:
            found = by_leader(ask, _TIMEOUT_S)
        return {TopicPartition(one.topic, one.partition): (each.offset, each.timestamp) for one, each in found.items()}
