"""What a topology finds around it: topics, features, records. Checked before a worker joins its group (promise L1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from streamml.adapters.codecs.json import json_decoder
from streamml.adapters.kafka.admin import KafkaAdmin, TopicInfo
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


def find_topics(topology: Topology, settings: Settings) -> dict[str, TopicInfo]:
    """The topology's topics as the broker has them.

    Raises:
        TopologyError: one is missing, or too small for what goes into it; with every problem.
        SourceUnavailable: the broker does not answer.
    """
    names = [*topology.source.topics, topology.sink.topic, topology.dead_letters.topic]
    found = KafkaAdmin(settings.client()).topics(names)
    problems = list(_topic_problems(topology, settings, found))
    if problems:
        raise TopologyError(problems)
    return found


def _topic_problems(topology: Topology, settings: Settings, found: Mapping[str, TopicInfo]) -> Iterator[str]:
    for name in (*topology.source.topics, topology.sink.topic, topology.dead_letters.topic):
        if name not in found:
            yield f"There is no topic {name!r} on {settings.brokers}; `streamml topics create` makes what a topology needs."
    letters = found.get(topology.dead_letters.topic)
    largest = max((found[name].max_message_bytes for name in topology.source.topics if name in found), default=0)
    if letters is not None and letters.max_message_bytes < largest + LETTER_OVERHEAD:
        yield (
            f"The dead-letter topic {letters.name!r} takes {letters.max_message_bytes} bytes at most, and the input topic "
            f"{largest}: a dead letter is larger than its record. Set its max.message.bytes to {largest + LETTER_OVERHEAD} or more."
        )


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
