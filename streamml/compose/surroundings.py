"""What a topology finds around it: topics, rights, features, records. Checked before a worker joins its group (promise L1)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Final

from streamml.adapters.codecs.json import json_decoder
from streamml.adapters.kafka.admin import USUAL_MESSAGE_BYTES, FoundTopics, KafkaAdmin, TopicInfo
from streamml.adapters.kafka.tail import read_topic
from streamml.batch.column import object_array
from streamml.errors import FeaturesUnavailable, TopologyError
from streamml.ports.feature_store import FeatureRequest, FeatureSchema, FeatureStore
from streamml.schema.contract import Contract
from streamml.settings.settings import Settings
from streamml.topology.steps import FeatureLookup
from streamml.topology.topology import Topology

# A dead letter is the record and a few headers; headers of ours are well under this.
LETTER_OVERHEAD: Final = 64 * 1024
_SAMPLE: Final = 20
_LOG: Final = logging.getLogger("streamml.surroundings")


def find_topics(topology: Topology, settings: Settings) -> dict[str, TopicInfo]:
    """The topology's topics as the broker has them, and this client may use them.

    Raises:
        TopologyError: a topic is missing, or too small for what goes into it, or a right is; with every problem.
        SourceUnavailable: the broker does not answer.
        FatalError: the broker refuses the login, or cannot be trusted.
    """
    admin = KafkaAdmin(settings.client())
    found = admin.find_topics([*topology.source.topics, topology.sink.topic, topology.dead_letters.topic])
    problems = [*_missing(topology, settings, found), *_small(topology, found.topics)]
    problems += _forbidden(topology, found.topics)
    group = settings.group or topology.name
    rights = admin.group_rights(group)
    if rights is not None and "READ" not in rights:
        problems.append(_lacking("READ", f"consumer group {group!r}"))
    if problems:
        raise TopologyError(problems)
    return dict(found.topics)


def _missing(topology: Topology, settings: Settings, found: FoundTopics) -> Iterator[str]:
    for name in (*topology.source.topics, topology.sink.topic, topology.dead_letters.topic):
        if name in found.hidden:
            yield (
                f"The broker does not say whether there is a topic {name!r} on {settings.brokers}: this client lacks the "
                "right DESCRIBE on it; `streamml acls` prints what a worker needs."
            )
        elif name not in found.topics:
            yield f"There is no topic {name!r} on {settings.brokers}; `streamml topics create` makes what a topology needs."


def _small(topology: Topology, found: Mapping[str, TopicInfo]) -> Iterator[str]:
    """The dead-letter topic, if it is too small. What this client may not see is told and not judged."""
    names = [name for name in (*topology.source.topics, topology.dead_letters.topic) if name in found]
    unseen = [name for name in (*names, topology.sink.topic) if name in found and not found[name].configuration_shown]
    if unseen:
        _LOG.warning(
            "This client may not see how %s is configured (right DESCRIBE_CONFIGS), so whether dead letters fit their topic "
            "is not checked, and predictions may have %d bytes at most.",
            ", ".join(unseen),
            USUAL_MESSAGE_BYTES,
        )
    letters = found.get(topology.dead_letters.topic)
    if letters is None or any(name in unseen for name in names):
        return
    largest = max((found[name].max_message_bytes for name in topology.source.topics if name in found), default=0)
    if letters.max_message_bytes < largest + LETTER_OVERHEAD:
        yield (
            f"The dead-letter topic {letters.name!r} takes {letters.max_message_bytes} bytes at most, and the input topic "
            f"{largest}: a dead letter is larger than its record. Set its max.message.bytes to {largest + LETTER_OVERHEAD} or more."
        )


def _forbidden(topology: Topology, found: Mapping[str, TopicInfo]) -> Iterator[str]:
    """Rights that a worker needs and this client has not, as far as the broker says."""
    reads = [(name, "READ") for name in topology.source.topics]
    for name, right in (*reads, (topology.sink.topic, "WRITE"), (topology.dead_letters.topic, "WRITE")):
        rights = found[name].rights if name in found else None
        if rights is not None and right not in rights:
            yield _lacking(right, f"topic {name!r}")


def _lacking(right: str, what: str) -> str:
    return f"This client lacks the right {right} on the {what}; grant it: `streamml acls` prints what a worker needs."


def feature_problems(topology: Topology, store: FeatureStore) -> list[str]:
    """Feature sets that cannot be read and have to be (``if_unavailable="wait"``).

    Raises:
        FeaturesUnavailable: the store itself does not answer.
    """
    sets = [one for step in topology.steps if isinstance(step, FeatureLookup) for one in step.sets]
    waiting = [one for one in sets if one.if_unavailable == "wait"]
    if waiting:
        store.ping()
    problems: list[str] = []
    for one in waiting:
        try:
            store.lookup([FeatureRequest(FeatureSchema(one.name, tuple(one.columns.items())), [])])
        except FeaturesUnavailable as error:
            problems.append(str(error))
    return problems


def sample_problems(topology: Topology, settings: Settings) -> list[str]:
    """Whether the latest records of the input are what the contract says; a few bad ones are no problem."""
    source = topology.source
    contract = Contract.of(source.schema)
    decoder = json_decoder(
        contract,
        columns=frozenset(contract.columns),
        parsing=source.parsing,
        duplicate_keys=source.duplicate_keys,
        max_record_bytes=source.max_record_bytes,
    )
    problems: list[str] = []
    for topic in source.topics:
        records = [one.record.value for one in read_topic(settings.client(), topic, last=_SAMPLE)]
        values = [value for value in records if value is not None]
        if not values:
            continue
        failed = decoder.decode(object_array(values, len(values))).failed
        if len(failed) > len(values) / 2:
            problems.append(
                f"{len(failed)} of the latest {len(values)} records of {topic} are not what {source.schema.__name__} says; "
                f"the first one: {failed[0][1]} Correct the contract or the producer."
            )
    return problems
