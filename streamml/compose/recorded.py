"""Features as they were: a topology's lookups exchanged for what its feature log has, and whether it reaches far enough."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.feature_log import KafkaFeatureLog, RecordedOnKafka, missing
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.adapters.kafka.stretch import StretchReader
from streamml.engine.feature_log import LogSchema
from streamml.errors import TopologyError
from streamml.ports.source import TopicPartition
from streamml.settings.settings import Settings
from streamml.stages.lookup import LookUp
from streamml.stages.recorded import LookUpRecorded
from streamml.stages.stage import Operator
from streamml.topology.topology import Topology

Stretches = Mapping[TopicPartition, tuple[int, int]]
# So many records in a row may well have become dead letters, or markers of transactions.
_USUAL_HOLE: Final = 1000


def feature_log_of(topology: Topology, settings: Settings) -> KafkaFeatureLog:
    """The topology's feature log.

    Raises:
        TopologyError: it declares none, or the topic is not there.
        SourceUnavailable: the broker does not answer.
        FatalError: it does not let this client see the topic.
    """
    if topology.feature_log is None:
        raise TopologyError(
            f'Topology {topology.name} keeps no features as they were. Declare feature_log=sm.FeatureLog("…") for the time '
            "to come; what is past can only be scored with features as they are now."
        )
    name = topology.feature_log.topic
    found = KafkaAdmin(settings.client()).topics([name])
    if name not in found:
        raise TopologyError(
            f"There is no feature log {name!r} on {settings.brokers}; `streamml topics create` makes it."
        )
    return KafkaFeatureLog(settings.consumer(), name, found[name].partitions, LogSchema(topology.feature_columns))


class RecordedLookups:
    """Exchanges lookups of a worker's stages for ones in the feature log. Close it after the worker has ended."""

    def __init__(self, log: KafkaFeatureLog, sets: Collection[str], *, partly: bool) -> None:
        """
        Args:
            sets: names; lookups of other sets stay as they are.
            partly: see `LookUpRecorded`.
        """
        self._log = log
        self._sets = sets
        self._partly = partly
        self._opened: list[RecordedOnKafka] = []

    def around(self, prefixes: Sequence[str]) -> Callable[[Operator], Operator]:
        """What to give to `streamml.compose.stages.build_stages`.

        Args:
            prefixes: prediction id prefixes by slot.
        """

        def exchanged(operator: Operator) -> Operator:
            if not isinstance(operator, LookUp) or not all(one.name in self._sets for one in operator.sets):
                return operator
            # One each: stages run at the same time.
            self._opened.append(RecordedOnKafka(self._log))
            return LookUpRecorded(operator.name, operator.sets, self._opened[-1], prefixes, partly=self._partly)

        return exchanged

    def close(self) -> None:
        """Close all connections."""
        for one in self._opened:
            one.close()


def log_problems(
    topology: Topology, settings: Settings, stretches: Stretches, topic_ids: Mapping[str, str]
) -> list[str]:
    """Where the feature log does not reach the ends of stretches; each a sentence with its remedy.

    Holes in the middle are not seen here. At the end of a stretch that the group has settled, a few records are: they may
    have become dead letters.

    Raises:
        TopologyError: there is no feature log.
        SourceUnavailable: the broker does not answer.
        FatalError: the log was written for other features, or this client may not read it.
    """
    log = feature_log_of(topology, settings)
    group = settings.group or topology.name
    settled = KafkaOffsets(settings.client()).committed(group, stretches)
    found: list[str] = []
    for where, (start, end) in sorted(stretches.items()):
        prefix = f"{topic_ids.get(where.topic, where.topic)}/{where.partition}/"
        for first, behind in missing(log, prefix, (start, end), _time_at(settings, where, start, end)):
            done = where in settled and settled[where].offset >= end
            if first > start and done and behind - first < _USUAL_HOLE:
                continue
            why = "it began later, or retention has removed it"
            if behind == end and first > start:
                why = (
                    "live workers have not scored them yet"
                    if not done
                    else "it was switched off, or all were dead letters"
                )
            found.append(
                f"The feature log {log.topic!r} has nothing of {where}, offsets {first} to {behind - 1}: {why}. Replay without "
                "them, or with --features live."
            )
    return found


def _time_at(settings: Settings, where: TopicPartition, start: int, end: int) -> int:
    """Time of the first record of a stretch, in ms since 1970 UTC."""
    reader = StretchReader(settings.consumer(), where)
    try:
        reader.read(start, end)
        messages = reader.poll()
        return int(messages[0].timestamp()[1]) if messages else 0
    finally:
        reader.close()
