"""A worker that scores a stretch again, beside those that score what comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.range_source import RangeSource
from streamml.compose.assemble import Assembled, Ports, assemble, kafka_sink_of
from streamml.compose.parts import Parts
from streamml.compose.recorded import RecordedLookups
from streamml.compose.stages import engine_config, reads_keys
from streamml.engine.assignment import SlotNames
from streamml.engine.pace import Pace
from streamml.engine.stretches import Bounds
from streamml.errors import TopologyError
from streamml.settings.settings import Settings
from streamml.telemetry.observer import Observer
from streamml.topology.topology import Topology


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one worker scores again.

    Args:
        group: keeps how far it is; the run's own, never that of live workers.
        name: of the worker, the same when it comes back.
        revision: of its predictions.
        stretches: what it reads.
        topic_ids: of the source's topics.
    """

    group: str
    name: str
    revision: int
    stretches: Bounds
    topic_ids: Mapping[str, str]


def compose_replay(
    topology: Topology,
    parts: Parts,
    settings: Settings,
    stretch: Stretch,
    pace: Pace,
    observer: Observer,
    recorded: RecordedLookups | None = None,
) -> Assembled:
    """A worker that reads its stretch from where its group is.

    Args:
        topology: with the topics that are to be written to; they exist.
        parts: of the topology; remain the caller's to close.
        recorded: where features are as they were; ``None``: they are looked up as they are now.

    Raises:
        ConfigError: topology, models or settings are wrong; with every problem.
        SourceUnavailable: the broker does not answer.
    """
    if parts.problems:
        raise TopologyError(parts.problems)
    into = topology.destination
    topics = KafkaAdmin(settings.client()).topics([into])
    if into not in topics:
        raise TopologyError(f"There is no topic {into!r} any more; start another replay.")
    largest = topics[into].max_message_bytes
    names = SlotNames(dict(stretch.topic_ids))
    source = RangeSource(
        stretch.stretches,
        stretch.group,
        settings.consumer(),
        names.topic_ids,
        keys=reads_keys(topology),
        headers=bool(topology.sink.headers),
    )
    name = f"{stretch.group}/{stretch.name}"
    sink = kafka_sink_of(topology, settings, stretch.group, name, largest, source.member, names.topic_ids)
    return assemble(
        topology,
        parts.models,
        settings,
        Ports(source, sink, parts.store),
        names,
        engine_config(topology, parts.models, settings.worker, stretch.name),
        observer,
        max_prediction_bytes=largest,
        revision=stretch.revision,
        around=(lambda operator: operator) if recorded is None else recorded.around(names.prefixes),
        pace=pace,
    )
