"""What a topology finds around it: topics, rights, features, records. Checked before a worker joins its group (promise L1)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from streamml.adapters.codecs.json import json_decoder
from streamml.adapters.kafka.admin import USUAL_MESSAGE_BYTES, FoundTopics, KafkaAdmin, TopicInfo
from streamml.adapters.kafka.membership import SESSION_MS
from streamml.adapters.kafka.source import KafkaSource
from streamml.adapters.kafka.tail import read_topic
from streamml.batch.column import object_array
from streamml.compose.assemble import latest_writer
from streamml.compose.control import control_topic
from streamml.compose.group_topics import lacking
from streamml.compose.parts import Parts
from streamml.compose.stages import guarantee_problems
from streamml.engine.feature_log import LogSchema
from streamml.errors import (
    ConfigError,
    FeaturesUnavailable,
    SourceUnavailable,
    StreamMLError,
    TopologyError,
    TransientError,
)
from streamml.ports.codec import Decoder
from streamml.ports.feature_store import FeatureRequest, FeatureStore
from streamml.schema.contract import Contract
from streamml.settings.settings import Settings
from streamml.topology.check import problems as declared_problems
from streamml.topology.steps import FeatureLookup
from streamml.topology.topology import Source, Topology

_LOG: Final = logging.getLogger("streamml.check")
# A dead letter is the record and a few headers; headers of ours are well under this.
LETTER_OVERHEAD: Final = 64 * 1024
_SAMPLE: Final = 20
_MOMENT: Final = "1ms"


@dataclass(slots=True)
class Findings:
    """What was found.

    Args:
        topics: those of the topology that exist.
        problems: each a sentence with its remedy.
        notes: what was found in order, for people.
        silent: what did not answer.
    """

    topics: dict[str, TopicInfo] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    silent: list[TransientError] = field(default_factory=list)

    @property
    def everything(self) -> list[str]:
        """The problems, and what did not answer."""
        return [*self.problems, *map(str, self.silent)]

    def topics_if_sound(self) -> dict[str, TopicInfo]:
        """The topics.

        Raises:
            TopologyError: there are problems; with all of them, and with what did not answer besides.
            TransientError: there are none, but something did not answer; waiting may help.
        """
        self.raise_problems()
        return self.topics

    def raise_problems(self) -> None:
        """Return if there are none; raises as `topics_if_sound` does."""
        if self.problems:
            raise TopologyError(self.everything)
        if self.silent:
            raise type(self.silent[0])(" ".join(map(str, self.silent)))

    @contextmanager
    def collecting(self, where: str = "") -> Iterator[None]:
        """Keep what is raised, with ``where`` before it, so that the rest is looked at, too."""
        try:
            yield
        except ConfigError as error:
            self.problems += error.problems
        except TransientError as error:
            self.silent.append(type(error)(f"{where}{error}"))
        except StreamMLError as error:
            self.problems.append(f"{where}{error}")


def examine(topology: Topology, parts: Parts, settings: Settings) -> Findings:
    """Everything that can be checked before a worker joins its group: what is wrong with the parts, and what is around."""
    found = Findings(problems=[*parts.problems, *guarantee_problems(topology, settings.worker)])
    broker = f"{settings.brokers}: "
    with found.collecting(broker):
        found.topics = _topics(topology, settings, found)
        _session(topology, settings)
        found.notes += [f"Topic {one.name}, partitions: {one.partitions}" for one in found.topics.values()]
    # Records are decoded and features asked for as declared; topics are but names.
    if declared_problems(topology):
        return found
    with found.collecting(broker):
        _sample(topology, settings, found)
    _examine_store(topology, parts, found)
    _examine_latest(topology, settings, found)
    return found


def examine_parts(topology: Topology, parts: Parts) -> Findings:
    """What can be checked without a broker: the parts, and the feature sets."""
    found = Findings(problems=list(parts.problems))
    if not declared_problems(topology):
        _examine_store(topology, parts, found)
    return found


def _examine_store(topology: Topology, parts: Parts, found: Findings) -> None:
    if parts.store is not None:
        with found.collecting():
            wrong = _feature_problems(topology, parts.store)
            found.problems += wrong
            found.notes += [] if wrong else ["Feature sets: every one that has to be there is"]


def _examine_latest(topology: Topology, settings: Settings, found: Findings) -> None:
    if topology.redis_sink is None:
        return
    from streamml.adapters.redis.latest_copy import LatestCopy

    moment = replace(topology.redis_sink, ttl=_MOMENT)
    with found.collecting(), LatestCopy(latest_writer(moment, settings), moment.name) as copy:
        copy.try_out()
        found.notes.append(f"Redis takes the latest predictions {moment.name}")


def _names(topology: Topology) -> tuple[str, ...]:
    log = () if topology.feature_log is None else (topology.feature_log.topic,)
    return (*topology.source.topics, *_of_predictions(topology), topology.dead_letters.topic, *log)


def _of_predictions(topology: Topology) -> tuple[str, ...]:
    return () if topology.sink.topic is None else (topology.sink.topic,)


def _written(topology: Topology) -> tuple[str, ...]:
    return _names(topology)[len(topology.source.topics) :]


def _topics(topology: Topology, settings: Settings, findings: Findings) -> dict[str, TopicInfo]:
    """The topology's topics as the broker has them; what is wrong with them, or with this client's rights, joins the findings."""
    admin = KafkaAdmin(settings.client())
    group = settings.group or topology.name
    control = control_topic(group)
    found = admin.find_topics((*_names(topology), control))
    topics = {name: info for name, info in found.topics.items() if name != control}
    findings.problems += [
        *_missing(topology, settings, found),
        *_small(topology, topics),
        *_unfit_log(topology, topics),
        *_forbidden(topology, topics),
    ]
    rights = admin.group_rights(group)
    if rights is not None and "READ" not in rights:
        findings.problems.append(_lacking("READ", f"consumer group {group!r}"))
    if (reason := lacking(control, found.topics, found.hidden)) is not None:
        findings.notes.append(f"Pause and resume: not at hand, as {reason}")
    return topics


def _session(topology: Topology, settings: Settings) -> None:
    """Warn where a dead worker's partitions would wait for long: with the new protocol that is the broker's to say."""
    if settings.worker.group_protocol == "classic":
        return
    group = settings.group or topology.name
    session = KafkaAdmin(settings.client()).group_session_ms(group)
    if session is not None and session > SESSION_MS:
        _LOG.warning(
            "The broker gives a dead worker of group %s up after %.0f s only. Set consumer.session.timeout.ms=%d of the group "
            "(kafka-configs --group), after group.consumer.min.session.timeout.ms of the brokers where that forbids it.",
            *(group, session / 1000, SESSION_MS),
        )


def _missing(topology: Topology, settings: Settings, found: FoundTopics) -> Iterator[str]:
    for name in _names(topology):
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
    unseen = [
        name for name in (*names, *_of_predictions(topology)) if name in found and not found[name].configuration_shown
    ]
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


def _unfit_log(topology: Topology, found: Mapping[str, TopicInfo]) -> Iterator[str]:
    """The feature log's topic, if one row of values does not fit, or it keeps only the last record of each source partition."""
    log = None if topology.feature_log is None else found.get(topology.feature_log.topic)
    if log is None:
        return
    least = LogSchema(topology.feature_columns).row_bytes + LETTER_OVERHEAD
    if log.max_message_bytes < least:
        yield (
            f"The feature log {log.name!r} takes {log.max_message_bytes} bytes at most, and a record of one row has up to "
            f"{least}. Set its max.message.bytes to {least} or more."
        )
    if "compact" in log.cleanup_policy:
        yield (
            f"The feature log {log.name!r} is compacted, and all records of a source partition have one key: only the last "
            "would stay. Set its cleanup.policy to delete."
        )


def _forbidden(topology: Topology, found: Mapping[str, TopicInfo]) -> Iterator[str]:
    """Rights that a worker needs and this client has not, as far as the broker says."""
    reads = [(name, "READ") for name in topology.source.topics]
    for name, right in (*reads, *((name, "WRITE") for name in _written(topology))):
        if name in found and not _may(found[name], right):
            yield _lacking(right, f"topic {name!r}")


def _may(topic: TopicInfo, right: str) -> bool:
    """Whether this client has a right on a topic, or the broker does not say."""
    return topic.rights is None or right in topic.rights


def _lacking(right: str, what: str) -> str:
    return f"This client lacks the right {right} on the {what}; grant it: `streamml acls` prints what a worker needs."


def _feature_problems(topology: Topology, store: FeatureStore) -> list[str]:
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
            store.lookup([FeatureRequest(one.schema, [])])
        except FeaturesUnavailable as error:
            # Only of a store that answers it says something about the set.
            store.ping()
            problems.append(str(error))
    return problems


def _sample(topology: Topology, settings: Settings, found: Findings) -> None:
    """Hold the latest records of the input against the contract; a few bad ones are no problem."""
    decoder = _decoder(topology.source)
    for topic in topology.source.topics:
        if topic not in found.topics or not _may(found.topics[topic], "READ"):
            continue
        try:
            records = [one.record.value for one in read_topic(settings.client(), topic, last=_SAMPLE)]
        except SourceUnavailable as error:
            # One partition may be away for long, and a worker that ran yesterday can serve the others.
            _LOG.warning("The latest records of %s were not checked: %s", topic, error)
            continue
        values = [value for value in records if value is not None]
        failed = decoder.decode(object_array(values, len(values))).failed if values else []
        if len(failed) <= len(values) * max(0.5, topology.dead_letters.max_ratio):
            continue
        told = (
            f"{len(failed)} of the latest {len(values)} records of {topic} are not what {topology.source.schema.__name__} "
            f"says; the first one: {failed[0][1]} Correct the contract or the producer."
        )
        if _has_run(topology, settings, found):
            # These may have been settled long ago; of what is new the dead-letter limit is the judge.
            _LOG.warning("%s", told)
            found.notes.append(told)
        else:
            found.problems.append(told)


def _decoder(source: Source) -> Decoder:
    contract = Contract.of(source.schema)
    return json_decoder(
        contract,
        columns=frozenset(contract.columns),
        parsing=source.parsing,
        duplicate_keys=source.duplicate_keys,
        max_record_bytes=source.max_record_bytes,
    )


def _has_run(topology: Topology, settings: Settings, found: Findings) -> bool:
    """Whether the group has committed anything yet."""
    source = topology.source
    there = [topic for topic in source.topics if topic in found.topics]
    probe = KafkaSource(there, settings.group or topology.name, source.start, settings.consumer())
    try:
        return bool(probe.committed())
    finally:
        probe.close()
