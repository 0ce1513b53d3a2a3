"""What a broker says about its topics, and how topics are made."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection, Uuid
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from streamml.adapters.kafka.client import Trouble, error_of, list_topics, opened, translated
from streamml.errors import FatalError, SourceUnavailable

_TIMEOUT_S: Final = 10.0
_NO_ID: Final = str(Uuid(0, 0))
_LISTEN_S: Final = 0.1
_AGAIN_S: Final = 0.02
# What Kafka's brokers take unless they are told otherwise.
USUAL_MESSAGE_BYTES: Final = 1_048_588
_HIDDEN: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as the broker has it.

    Args:
        id: the topic's id; its name where the broker has no ids.
        partitions: number of partitions.
        max_message_bytes: largest batch that it takes, compressed; what is usual where the broker does not say.
        cleanup_policy: ``delete``, ``compact`` or both; empty where the broker does not say.
        configuration_shown: whether this client may see how the topic is configured.
        rights: what this client may do, as ``READ``; ``None`` where the broker does not say.
        timestamp_type: ``CreateTime`` or ``LogAppendTime``; empty where the broker does not say.
    """

    name: str
    id: str
    partitions: int
    max_message_bytes: int
    cleanup_policy: str
    configuration_shown: bool = True
    rights: frozenset[str] | None = None
    timestamp_type: str = ""


@dataclass(frozen=True, slots=True)
class FoundTopics:
    """Topics that were asked for.

    Args:
        topics: those that exist.
        hidden: those of which the broker does not even say whether they exist, for want of the right DESCRIBE.
    """

    topics: Mapping[str, TopicInfo]
    hidden: tuple[str, ...]


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
        self._trouble = Trouble()
        self._client: Any = opened(AdminClient, dict(client), self._trouble)
        self._brokers = str(client.get("bootstrap.servers"))

    def brokers(self) -> int:
        """How many brokers there are.

        Raises:
            SourceUnavailable: none answers.
            FatalError: a broker refuses the login, or cannot be trusted.
        """
        with translated(self._brokers, self._trouble):
            return len(list_topics(self._client, self._trouble, _TIMEOUT_S / 2).brokers)

    def topics(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """Those of the topics that exist.

        Raises:
            SourceUnavailable: the broker does not answer.
            FatalError: a broker refuses the login, or does not say whether a topic exists.
        """
        found = self.find_topics(names)
        if found.hidden:
            raise FatalError(
                f"The broker does not say whether there is a topic {', '.join(found.hidden)}; grant this client the right "
                "DESCRIBE on it."
            )
        return dict(found.topics)

    def find_topics(self, names: Iterable[str]) -> FoundTopics:
        """What the broker says of topics to this client.

        Raises:
            SourceUnavailable: the broker does not answer.
            FatalError: a broker refuses the login, or cannot be trusted.
        """
        described, hidden = self._described(names)
        configs = self._configs(list(described))
        # One that was deleted between the two questions is not there.
        infos = {name: _info(one, configs[name]) for name, one in described.items() if name in configs}
        return FoundTopics(infos, tuple(hidden))

    def topic_id(self, name: str) -> str | None:
        """`TopicInfo.id` of a topic that exists and that this client may see.

        Raises:
            SourceUnavailable: the broker does not answer.
            FatalError: a broker refuses the login, or cannot be trusted.
        """
        described, _ = self._described([name])
        return (id_of(described[name].topic_id) or name) if name in described else None

    def _described(self, names: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
        """Topics that exist, and names of which the broker does not even say that."""
        wanted = list(dict.fromkeys(names))
        asked = self._client.describe_topics(
            TopicCollection(wanted), include_authorized_operations=True, request_timeout=_TIMEOUT_S
        )
        described: dict[str, Any] = {}
        hidden: list[str] = []
        for name, future in asked.items():
            try:
                described[name] = self._answer(future)
            except KafkaException as error:
                if error.args[0].code() in _HIDDEN:
                    hidden.append(name)
                elif error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise error_of(error.args[0], self._brokers) from error
        return described, hidden

    def group_rights(self, group: str) -> frozenset[str] | None:
        """What this client may do with a group, as ``READ``; ``None`` where the broker does not say.

        Raises:
            SourceUnavailable: the broker does not answer.
            FatalError: a broker refuses the login, or cannot be trusted.
        """
        asked = self._client.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=_TIMEOUT_S
        )
        try:
            return _rights(self._answer(asked[group]))
        except KafkaException as error:
            if error.args[0].code() in _HIDDEN:
                return frozenset()
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return None
            raise error_of(error.args[0], self._brokers) from error

    def group_is_stable(self, group: str) -> bool:
        """Whether a group has members and no rebalance is going on.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        with translated(self._brokers):
            described = self._client.describe_consumer_groups([group], request_timeout=_TIMEOUT_S)[group].result()
        return bool(described.members) and described.state.name == "STABLE"

    def group_members(self, group: str) -> list[str]:
        """Who is in a group, as it may be named: ``group.instance.id``, else the client's id and its host.

        Raises:
            SourceUnavailable: the broker does not answer.
            FatalError: this client may not look at the group.
        """
        with translated(self._brokers, self._trouble):
            try:
                described = self._answer(
                    self._client.describe_consumer_groups([group], request_timeout=_TIMEOUT_S)[group]
                )
            except KafkaException as error:
                if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                    return []
                raise
        return [one.group_instance_id or f"{one.client_id}{one.host}" for one in described.members]

    def group_session_ms(self, group: str) -> int | None:
        """When the new rebalance protocol gives a group's member up; ``None`` where the broker does not say.

        Raises:
            SourceUnavailable: the broker does not answer.
            FatalError: a broker refuses the login, or cannot be trusted.
        """
        resource = ConfigResource(ResourceType.GROUP, group)
        answers = self._client.describe_configs([resource], request_timeout=_TIMEOUT_S)
        try:
            return int(self._answer(answers[resource])["consumer.session.timeout.ms"].value)
        except KeyError:
            return None
        except KafkaException as error:
            if error.args[0].code() in (*_HIDDEN, KafkaError.INVALID_REQUEST, KafkaError.UNSUPPORTED_VERSION):
                return None
            raise error_of(error.args[0], self._brokers) from error

    def create(self, plans: Sequence[NewTopicPlan]) -> None:
        """Make topics; one that exists is left as it is. Returns when the broker, asked for them, has them.

        Raises:
            FatalError: no rights, or a configuration that the broker refuses.
            SourceUnavailable: the broker does not answer, or the topics it made are not there.
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
        self._await([one.name for one in plans])

    def _await(self, names: list[str]) -> None:
        """Brokers hear of a new topic one after the other, and of its configuration last."""
        ends = time.monotonic() + _TIMEOUT_S
        while True:
            found = self.find_topics(names)
            missing = set(names) - found.topics.keys() - set(found.hidden)
            if not missing:
                return
            if time.monotonic() > ends:
                raise SourceUnavailable(
                    f"The broker at {self._brokers} has made {', '.join(sorted(missing))} and does not know it {_TIMEOUT_S:.0f} s later; "
                    "look at the broker's log, and try again."
                )
            time.sleep(_AGAIN_S)

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete topics, with everything in them; one that does not exist is as it should be.

        Raises:
            FatalError: no rights.
            SourceUnavailable: the broker does not answer.
        """
        self._delete(self._client.delete_topics(list(names), request_timeout=_TIMEOUT_S))

    def delete_groups(self, names: Sequence[str]) -> None:
        """Delete groups that have no members, with their positions; one that does not exist is as it should be.

        Raises:
            FatalError: no rights, or a group has members.
            SourceUnavailable: the broker does not answer.
        """
        self._delete(self._client.delete_consumer_groups(list(names), request_timeout=_TIMEOUT_S))

    def _delete(self, futures: Mapping[str, Future[Any]]) -> None:
        for future in futures.values():
            try:
                self._answer(future)
            except KafkaException as error:
                if error.args[0].code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND):
                    raise error_of(error.args[0], self._brokers) from error

    def _configs(self, names: list[str]) -> dict[str, dict[str, str] | None]:
        """By topic that exists; ``None`` where this client may not see it."""
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        found: dict[str, dict[str, str] | None] = {}
        for resource, future in self._client.describe_configs(resources, request_timeout=_TIMEOUT_S).items():
            try:
                found[resource.name] = {name: entry.value for name, entry in self._answer(future).items()}
            except KafkaException as error:
                if error.args[0].code() in _HIDDEN:
                    found[resource.name] = None
                elif error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise error_of(error.args[0], self._brokers) from error
        return found

    def _answer(self, future: Future[Any]) -> Any:
        """What comes of a question. Meanwhile the client is listened to: a refused login ends in no answer at all."""
        while True:
            try:
                return future.result(_LISTEN_S)
            except TimeoutError:
                self._client.poll(0)
                self._trouble.check()


def _info(described: Any, config: Mapping[str, str] | None) -> TopicInfo:
    return TopicInfo(
        described.name,
        id_of(described.topic_id) or described.name,
        len(described.partitions),
        USUAL_MESSAGE_BYTES if config is None else int(config["max.message.bytes"]),
        "" if config is None else config["cleanup.policy"],
        config is not None,
        _rights(described),
        "" if config is None else config.get("message.timestamp.type", ""),
    )


def _rights(described: Any) -> frozenset[str] | None:
    # A broker that does not know what it is asked for says nothing; who may do nothing at all is told so by an error.
    return frozenset(one.name for one in described.authorized_operations or ()) or None


def id_of(topic: Uuid | None) -> str | None:
    """A topic's id as text. A broker without ids answers with zeros, which all of its topics would share."""
    return None if topic is None or str(topic) == _NO_ID else str(topic)
