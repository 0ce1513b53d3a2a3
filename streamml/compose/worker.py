"""A worker on Kafka and Redis."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from socket import gethostname
from typing import Any, Final

from streamml.adapters.kafka.membership import SESSION_MS
from streamml.adapters.kafka.offsets import settled_positions
from streamml.adapters.kafka.sink import KafkaSink
from streamml.adapters.kafka.source import KafkaSource
from streamml.adapters.kafka.transactions import KafkaTransactions
from streamml.clock import Clock, SystemClock
from streamml.compose.control import open_control
from streamml.compose.identity import Identity, claim
from streamml.compose.parts import Parts
from streamml.compose.stages import build_stages, engine_config, reads_keys
from streamml.compose.surroundings import examine
from streamml.compose.sweep import sweep
from streamml.engine.assignment import SlotNames
from streamml.engine.engine import Engine
from streamml.errors import SettingsError
from streamml.ports.feature_store import FeatureStore
from streamml.runtime.reader import WorkerConfig
from streamml.runtime.worker import Worker
from streamml.settings.settings import Settings
from streamml.stages.guard import GuardedStore, feature_store_guard
from streamml.telemetry.observer import Observer
from streamml.topology.topology import Topology

_TRANSACTION_MS: Final = 5_000


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
        costs = sweep(topology, parts.models)
        largest = topics[topology.sink.topic].max_message_bytes
        log = None if topology.feature_log is None else topics[topology.feature_log.topic]
        largest_log = largest if log is None else log.max_message_bytes
        decided = engine_config(
            topology, parts.models, settings.worker, identity.name, costs, max_log_bytes=largest_log
        )
        engine = Engine(decided, names)
        clock, observer = SystemClock(), observer or Observer()
        store = _guarded(parts.store, clock, observer)
        stages = build_stages(topology, parts.models, store, names.prefixes, max_prediction_bytes=largest)
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
        config = WorkerConfig(
            max_poll_rows=settings.worker.max_poll_rows,
            drain_s=settings.worker.drain_ms / 1000,
            stuck_after_s=settings.worker.stuck_after_ms / 1000,
        )
        # A topic refuses a batch over its limit as a whole, with the records that are not to blame.
        producer = {"batch.size": min(largest, largest_log, 1_000_000), **settings.producer()}
        # Two dynamic members of one name fence each other's producers and nothing else, for ever.
        own_name = identity.name if static else f"{gethostname()}/{identity.name}"
        sink = _sink(topology, settings, producer, f"{group}/{own_name}", source, names.topic_ids)
        control = open_control(settings, group)
        worker = Worker(engine, source, stages, sink, clock, config, observer, control)
        undo.pop_all()
    return Composed(worker, engine, identity)


def _guarded(store: FeatureStore | None, clock: Clock, observer: Observer) -> FeatureStore | None:
    if store is None:
        return None
    guard = feature_store_guard(clock)
    observer.guards.append(guard)
    return GuardedStore(store, guard)


def _sink(
    topology: Topology,
    settings: Settings,
    producer: dict[str, Any],
    name: str,
    source: KafkaSource,
    topic_ids: dict[str, str],
) -> KafkaSink:
    if settings.worker.processing_guarantee == "at_least_once":
        return KafkaSink(producer)
    if topology.sink.order != "partition":
        raise SettingsError(
            'processing_guarantee is "exactly_once", and the sink\'s order is "none": a transaction is a cut through the '
            'order of each partition. Set Sink(order="partition"), or process at least once.'
        )
    # Whoever takes the partitions of a dead worker over waits for its transaction to end: a broker looks for those that are
    # over time every ten seconds, so that the time and those ten should be over soon after the session.
    session = int(settings.consumer().get("session.timeout.ms", SESSION_MS))
    timeout = max(min(session, _TRANSACTION_MS), 2 * settings.worker.commit_interval_ms)
    own = {"transaction.timeout.ms": timeout, **producer}
    committed = settled_positions(settings.client(), settings.group or topology.name)
    return KafkaTransactions(own, name, source.member, committed, topic_ids)
