"""A worker on Kafka and Redis."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from socket import gethostname

from streamml.adapters.kafka.admin import USUAL_MESSAGE_BYTES
from streamml.adapters.kafka.source import KafkaSource
from streamml.compose.assemble import Ports, assemble, kafka_sink_of, with_latest
from streamml.compose.control import open_control
from streamml.compose.identity import Identity, claim
from streamml.compose.parts import Parts
from streamml.compose.stages import engine_config, reads_keys
from streamml.compose.surroundings import examine
from streamml.compose.sweep import sweep
from streamml.engine.assignment import SlotNames
from streamml.engine.engine import Engine
from streamml.runtime.worker import Worker
from streamml.settings.settings import Settings
from streamml.telemetry.observer import Observer
from streamml.topology.topology import Topology


@dataclass(slots=True)
class Composed:
    """A worker that is ready to run, and its identity. Use it in a ``with`` statement, or `close` it."""

    worker: Worker
    engine: Engine
    identity: Identity

    def __enter__(self) -> Composed:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.identity.release()


def compose_worker(topology: Topology, parts: Parts, settings: Settings, observer: Observer | None = None) -> Composed:
    """A worker with everything checked that can be; it has not joined the group yet (promise L1).

    Args:
        parts: remain the caller's to close, after the worker has ended.

    Raises:
        ConfigError: topology, models, surroundings or settings are wrong; with every problem.
        FeaturesUnavailable, SourceUnavailable: what was asked does not answer; nothing is left open, so try again.
    """
    topics = examine(topology, parts, settings).topics_if_sound()
    group = settings.group or topology.name
    with ExitStack() as undo:
        identity = claim(settings.brokers, group, settings.worker_id)
        undo.callback(identity.release)
        names = SlotNames({name: topics[name].id for name in topology.source.topics})
        # Of what has no topic as much as one usually takes, so that a replay can write it into one.
        largest = USUAL_MESSAGE_BYTES if topology.sink.topic is None else topics[topology.sink.topic].max_message_bytes
        largest_log = largest if topology.feature_log is None else topics[topology.feature_log.topic].max_message_bytes
        costs = sweep(topology, parts.models)
        config = engine_config(topology, parts.models, settings.worker, identity.name, costs, max_log_bytes=largest_log)
        # A static member of the new protocol cannot come back before its session has ended; a dynamic one can.
        static = identity.stable and settings.worker.group_protocol == "classic"
        member = {"group.instance.id": f"{group}/{identity.name}"} if static else {}
        source = KafkaSource(
            topology.source.topics,
            group,
            topology.source.start,
            {**settings.consumer(), **member},
            keys=reads_keys(topology),
            headers=bool(topology.sink.headers),
            transactional=settings.worker.processing_guarantee == "exactly_once",
            topic_ids=names.topic_ids,
            partitions_added=topology.source.partitions_added,
        )
        undo.callback(source.close)
        # Two dynamic members of one name fence each other's producers and nothing else, for ever.
        own_name = identity.name if static else f"{gethostname()}/{identity.name}"
        name = f"{group}/{own_name}"
        sink = kafka_sink_of(topology, settings, group, name, min(largest, largest_log), source.member, names.topic_ids)
        ports = Ports(source, with_latest(sink, topology, settings), parts.store, open_control(settings, group))
        made = assemble(
            topology,
            parts.models,
            settings,
            ports,
            names,
            config,
            observer or Observer(),
            max_prediction_bytes=largest,
        )
        undo.pop_all()
    return Composed(made.worker, made.engine, identity)
