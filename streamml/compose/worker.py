"""A worker on Kafka and Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamml.adapters.kafka.sink import KafkaSink
from streamml.adapters.kafka.source import DEFAULTS, KafkaSource
from streamml.adapters.kafka.transactions import KafkaTransactions
from streamml.clock import SystemClock
from streamml.compose.identity import Identity, claim
from streamml.compose.models import load_models
from streamml.compose.stages import build_stages, engine_config, needs_features, reads_keys
from streamml.compose.surroundings import feature_problems, find_topics
from streamml.engine.assignment import SlotNames
from streamml.engine.engine import Engine
from streamml.errors import SettingsError, TopologyError
from streamml.ports.feature_store import FeatureStore
from streamml.ports.model import Model
from streamml.runtime.reader import WorkerConfig
from streamml.runtime.worker import Worker
from streamml.settings.settings import RedisSettings, Settings
from streamml.telemetry.observer import Observer
from streamml.topology.topology import Topology


@dataclass(slots=True)
class Composed:
    """A worker that is ready to run, and what it holds. Use it in a ``with`` statement, or `close` it."""

    worker: Worker
    engine: Engine
    identity: Identity
    models: Mapping[str, Model]
    store: FeatureStore | None

    def __enter__(self) -> Composed:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
        for model in self.models.values():
            model.close()
        self.identity.release()


def compose_worker(
    topology: Topology,
    repository: Path,
    settings: Settings,
    observer: Observer | None = None,
) -> Composed:
    """Everything that a worker needs, checked and warm; it has not joined the group yet.

    Raises:
        ConfigError: topology, models or settings are wrong; with every problem.
        FeaturesUnavailable, SourceUnavailable: what was asked for at the start does not answer.
    """
    models = load_models(topology, settings.model.repository or repository, settings.model)
    topics = find_topics(topology, settings)
    store = open_store(settings.redis) if needs_features(topology) else None
    if store is not None and (problems := feature_problems(topology, store)):
        raise TopologyError(problems)
    group = settings.group or topology.name
    identity = claim(settings.brokers, group, settings.worker_id)
    names = SlotNames({name: topics[name].id for name in topology.source.topics})
    engine = Engine(engine_config(topology, models, settings.worker, identity.name), names)
    largest = topics[topology.sink.topic].max_message_bytes
    stages = build_stages(topology, models, store, names.prefixes, max_prediction_bytes=largest)
    member = {"group.instance.id": f"{group}/{identity.name}"} if identity.stable else {}
    source = KafkaSource(
        topology.source.topics,
        group,
        topology.source.start,
        {**settings.consumer(), **member},
        keys=reads_keys(topology),
        headers=bool(topology.sink.headers),
        transactional=settings.worker.processing_guarantee == "exactly_once",
    )
    config = WorkerConfig(max_poll_rows=settings.worker.max_poll_rows, drain_s=settings.worker.drain_ms / 1000)
    # A topic refuses a batch over its limit as a whole, with the records that are not to blame.
    producer = {"batch.size": min(largest, 1_000_000), **settings.producer()}
    sink = _sink(topology, settings, producer, f"{group}/{identity.name}", source)
    worker = Worker(engine, source, stages, sink, SystemClock(), config, observer)
    return Composed(worker, engine, identity, models, store)


def _sink(
    topology: Topology, settings: Settings, producer: dict[str, Any], name: str, source: KafkaSource
) -> KafkaSink:
    if settings.worker.processing_guarantee == "at_least_once":
        return KafkaSink(producer)
    if topology.sink.order != "partition":
        raise SettingsError(
            'processing_guarantee is "exactly_once", and the sink\'s order is "none": a transaction is a cut through the '
            'order of each partition. Set Sink(order="partition"), or process at least once.'
        )
    # No longer than the session: whoever takes the partitions of a dead worker over waits for its transaction to end.
    session = settings.consumer().get("session.timeout.ms", DEFAULTS["session.timeout.ms"])
    return KafkaTransactions({"transaction.timeout.ms": session, **producer}, name, source.member)


def open_store(settings: RedisSettings) -> FeatureStore:
    """The feature store that settings name; it connects when it is asked first."""
    from streamml.adapters.redis.store import RedisFeatureStore

    return RedisFeatureStore(settings.url, timeout_s=settings.timeout_ms / 1000, options=settings.options)
