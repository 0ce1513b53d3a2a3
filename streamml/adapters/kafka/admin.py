"""What a broker says about its topics, and how topics are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection, Uuid
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from streamml.adapters.kafka.client import error_of, opened, translated

_TIMEOUT_S: Final = 10.0
_NO_ID: Final = str(Uuid(0, 0))


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as the broker has it.

    Args:
        id: the topic's id; its name where the broker has no ids.
        partitions: number of partitions.
        max_message_bytes: largest batch that it takes, compressed.
        cleanup_policy: ``delete``, ``compact`` or both.
    """

    name: str
    id: str
    partitions: int
    max_message_bytes: int
    cleanup_policy: str


@dataclass(frozen=True, slots=True)
class NewTopicPlan:
    """A topic to be made."""

    name: str
    partitions: int
    replication: int = -1
    config: Mapping[str, str] = field(default_factory=dict)


class KafkaAdmin:
    """Asks and changes a broker. Every call waits for its answer, at most ten seconds."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        """
        Args:
            client: librdkafka properties, ``bootstrap.servers`` at least.

        Raises:
            SettingsError: a property is wrong.
        """
        self._client: Any = opened(AdminClient, dict(client))
        self._brokers = str(client.get("bootstrap.servers"))

    def brokers(self) -> int:
        """How many brokers there are.

        Raises:
            SourceUnavailable: none answers.
        """
        with translated(self._brokers):
            return len(self._client.list_topics(timeout=_TIMEOUT_S / 2).brokers)

    def topics(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """Those of the topics that exist.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        with translated(self._brokers):
            known = self._client.list_topics(timeout=_TIMEOUT_S).topics
        wanted = [name for name in dict.fromkeys(names) if name in known]
        if not wanted:
            return {}
        ids, configs = self._ids(wanted), self._configs(wanted)
        return {
            name: TopicInfo(
                name,
                ids.get(name, name),
                len(known[name].partitions),
                int(configs[name]["max.message.bytes"]),
                configs[name]["cleanup.policy"],
            )
            for name in wanted
        }

    def group_is_stable(self, group: str) -> bool:
        """Whether a group has members and no rebalance is going on.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        with translated(self._brokers):
            described = self._client.describe_consumer_groups([group], request_timeout=_TIMEOUT_S)[group].result()
        return bool(described.members) and described.state.name == "STABLE"

    def create(self, plans: Sequence[NewTopicPlan]) -> None:
        """Make topics; one that exists is left as it is.

        Raises:
            FatalError: no rights, or a configuration that the broker refuses.
            SourceUnavailable: the broker does not answer.
        """
        if not plans:
            return
        new = [NewTopic(one.name, one.partitions, one.replication, config=dict(one.config)) for one in plans]
        with translated(self._brokers):
            futures = self._client.create_topics(new, request_timeout=_TIMEOUT_S)
        for future in futures.values():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise error_of(error.args[0], self._brokers) from error

    def _ids(self, names: list[str]) -> dict[str, str]:
        with translated(self._brokers):
            futures = self._client.describe_topics(TopicCollection(names), request_timeout=_TIMEOUT_S)
            described = {name: future.result() for name, future in futures.items()}
        ids = {name: id_of(found.topic_id) for name, found in described.items()}
        return {name: id for name, id in ids.items() if id is not None}

    def _configs(self, names: list[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        with translated(self._brokers):
            futures = self._client.describe_configs(resources, request_timeout=_TIMEOUT_S)
            return {
                resource.name: {name: entry.value for name, entry in future.result().items()}
                for resource, future in futures.items()
            }


def id_of(topic: Uuid | None) -> str | None:
    """A topic's id as text. A broker without ids answers with zeros, which all of its topics would share."""
    return None if topic is None or str(topic) == _NO_ID else str(topic)
