"""The one way in which a worker is put together, whatever it reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from streamml.adapters.kafka.membership import SESSION_MS
from streamml.adapters.kafka.offsets import settled_positions
from streamml.adapters.kafka.sink import KafkaSink
from streamml.adapters.kafka.transactions import KafkaTransactions
from streamml.clock import Clock, SystemClock
from streamml.compose.stages import build_stages, guarantee_problems
from streamml.engine.assignment import SlotNames
from streamml.engine.engine import Engine, EngineConfig
from streamml.engine.pace import Pace
from streamml.errors import SettingsError
from streamml.ports.control import Control
from streamml.ports.feature_store import FeatureStore, NearCaching
from streamml.ports.model import Model
from streamml.ports.sink import Sink, TransactionalSink
from streamml.ports.source import Source
from streamml.runtime.reader import WorkerConfig
from streamml.runtime.worker import Worker
from streamml.settings.settings import Settings
from streamml.stages.guard import GuardedStore, feature_store_guard
from streamml.stages.stage import Operator
from streamml.telemetry.observer import Observer
from streamml.topology.duration import seconds
from streamml.topology.topology import RedisSink, Topology

if TYPE_CHECKING:
    from streamml.adapters.redis.latest_writer import LatestWriter

_TRANSACTION_MS: Final = 5_000


class Assembled(NamedTuple):
    """A worker that is ready to run, and its engine."""

    worker: Worker
    engine: Engine


@dataclass(frozen=True, slots=True)
class Ports:
    """What a worker reads and writes with.

    Args:
        store: where features are; ``None`` where none are looked up.
        control: tells of pauses; ``None``: nothing does, and a storm of dead letters ends the worker.
    """

    source: Source
    sink: Sink
    store: FeatureStore | None
    control: Control | None = None


def assemble(
    topology: Topology,
    models: Mapping[str, Model],
    settings: Settings,
    ports: Ports,
    names: SlotNames,
    config: EngineConfig,
    observer: Observer,
    *,
    max_prediction_bytes: int = 1_000_000,
    revision: int = 0,
    around: Callable[[Operator], Operator] = lambda operator: operator,
    pace: Pace | None = None,
) -> Assembled:
    """A worker of these parts; the arguments are those of `Engine`, `build_stages`, `Worker` and `WorkerConfig`."""
    engine, clock = Engine(config, names), SystemClock()
    stages = build_stages(
        topology,
        models,
        _guarded(ports.store, clock, observer),
        names.prefixes,
        max_prediction_bytes=max_prediction_bytes,
        revision=revision,
        around=around,
    )
    driven = WorkerConfig(
        max_poll_rows=settings.worker.max_poll_rows,
        drain_s=settings.worker.drain_ms / 1000,
        stuck_after_s=settings.worker.stuck_after_ms / 1000,
        pace=pace,
    )
    return Assembled(Worker(engine, ports.source, stages, ports.sink, clock, driven, observer, ports.control), engine)


def _guarded(store: FeatureStore | None, clock: Clock, observer: Observer) -> FeatureStore | None:
    if store is None:
        return None
    guard = feature_store_guard(clock)
    observer.guards.append(guard)
    if isinstance(store, NearCaching):
        observer.near_caches = store.near_caches
    return GuardedStore(store, guard)


def kafka_sink_of(
    topology: Topology,
    settings: Settings,
    group: str,
    name: str,
    largest: int,
    member: Callable[[], Any],
    topic_ids: Mapping[str, str],
) -> KafkaSink:
    """A sink that keeps the processing guarantee of the settings.

    Args:
        group: whose positions transactions carry.
        name: ``transactional.id``; of one worker at a time.
        largest: bytes that each of the topics takes that predictions and their features go to.
        member: see `KafkaTransactions`.

    Raises:
        SettingsError: the sink and the guarantee exclude each other.
    """
    # A topic refuses a batch over its limit as a whole, with the records that are not to blame.
    producer = {"batch.size": min(largest, 1_000_000), **settings.producer()}
    if settings.worker.processing_guarantee == "at_least_once":
        return KafkaSink(producer)
    if wrong := guarantee_problems(topology, settings.worker):
        raise SettingsError(wrong)
    # Whoever takes the partitions of a dead worker over waits for its transaction to end: a broker looks for those that are
    # over time every ten seconds, so that the time and those ten should be over soon after the session.
    session = int(settings.consumer().get("session.timeout.ms", SESSION_MS))
    timeout = max(min(session, _TRANSACTION_MS), 2 * settings.worker.commit_interval_ms)
    own = {"transaction.timeout.ms": timeout, **producer}
    return KafkaTransactions(own, name, member, settled_positions(settings.client(), group), topic_ids)


def with_latest(sink: Sink, topology: Topology, settings: Settings) -> Sink:
    """The sink, and latest predictions in Redis where the topology wants them, beside its topic or instead of one.

    Raises:
        ConfigError: the URL or an option of Redis is not valid.
    """
    latest = topology.redis_sink
    if latest is None:
        return sink
    from streamml.adapters.redis.latest_sink import LatestOnly, SinkAndLatest, TransactionsAndLatest

    writer = latest_writer(latest, settings)
    if latest is topology.sink:
        return LatestOnly(sink, writer, topology.destination, latest.name)
    if isinstance(sink, TransactionalSink):
        return TransactionsAndLatest(sink, writer, topology.destination, latest.name)
    return SinkAndLatest(sink, writer, topology.destination, latest.name)


def latest_writer(latest: RedisSink, settings: Settings) -> LatestWriter:
    """What writes latest predictions; nothing is connected yet.

    Raises:
        ConfigError: the URL or an option of Redis is not valid.
    """
    from streamml.adapters.redis.connection import Server
    from streamml.adapters.redis.latest_writer import LatestWriter

    server = Server(settings.redis.url, settings.redis.timeout_ms / 1000, settings.redis.options)
    # 0 is for ever, and no ttl is that short.
    keep_ms = 0 if latest.ttl is None else max(1, round(seconds(latest.ttl) * 1000))
    return LatestWriter(server, keep_ms)
