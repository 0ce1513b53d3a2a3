"""Runs a topology in this process, in virtual time: for users' own tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import to_json

from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.control import MemoryControl
from streamml.adapters.memory.feature_store import Entity, MemoryFeatureStore
from streamml.adapters.memory.latest import MemoryLatest, MemoryLatestWriter
from streamml.adapters.memory.sink import MemorySink
from streamml.adapters.memory.source import MemorySource
from streamml.adapters.memory.transactions import MemoryTransactions
from streamml.adapters.redis.latest import Latest
from streamml.adapters.redis.latest_sink import SinkAndLatest, TransactionsAndLatest
from streamml.clock import ManualClock
from streamml.compose.stages import build_stages, engine_config, guarantee_problems, reads_keys
from streamml.engine.assignment import SlotNames
from streamml.engine.dead_letters import DeadLetter, read_letter
from streamml.engine.engine import Engine, EngineStatistics
from streamml.engine.identity import prediction_id
from streamml.errors import SettingsError
from streamml.ports.control import RUNNING, GroupState
from streamml.ports.model import Model
from streamml.ports.sink import Sink
from streamml.ports.source import Headers, TopicPartition
from streamml.settings.settings import WorkerSettings
from streamml.stages.guard import GuardedStore, feature_store_guard
from streamml.testing.guest import Guest
from streamml.testing.models import StandIn, models_of
from streamml.testing.results import Prediction, read_prediction
from streamml.testing.virtual_worker import ServiceTime, VirtualWorker
from streamml.topology.duration import seconds
from streamml.topology.features import FeatureSet
from streamml.topology.topology import RedisSink, Topology

_START: Final = datetime(2024, 1, 1, tzinfo=UTC)
_ANY_SIZE: Final = 2**40


class TopologyDriver:
    """A topology on the engine and stages of a real worker, with a broker and a feature store in this process.

    Nothing happens and no time passes until `settle` or `advance`; a fatal error is raised from there. The broker and the
    store can fail on purpose: ``driver.broker.fail("…")``, ``driver.store.fail("…")``; what a `RedisSink` keeps is in
    ``driver.latest_store``, which can fail as well.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        models: Mapping[str, Model | StandIn] | None = None,
        features: MemoryFeatureStore | None = None,
        repository: str | Path = "models",
        start: datetime = _START,
        partitions: int = 1,
        service_time: ServiceTime | None = None,
        settings: WorkerSettings | None = None,
    ) -> None:
        """
        Args:
            models: what stands in for models, by name: functions from input columns to output columns, or models.
            features: a store that is loaded already; `features` loads one set.
            repository: where the other models are.
            start: the time at which it begins.
            partitions: of each input topic. The other topics have one, so that results have one order.
            service_time: virtual seconds that steps take for a number of rows, by name: ``{"flight-delay": lambda rows: 0.01}``.
            settings: bounds and times of the worker.

        Raises:
            ConfigError: topology or models are wrong; with every problem.
        """
        self.clock: Final = ManualClock(start.timestamp())
        self.broker: Final = MemoryBroker(self.clock)
        self.store: Final = features or MemoryFeatureStore()
        self._topology = topology
        self._models = models_of(topology, models or {}, Path(repository))
        self._service_time = service_time or {}
        self._settings = settings or WorkerSettings()
        if wrong := guarantee_problems(topology, self._settings):
            raise SettingsError(wrong)
        kept = topology.redis_sink or RedisSink("none")
        self.latest_store: Final = MemoryLatest(kept.name, seconds(kept.ttl or 0.0), self.clock)
        self._guests: list[Guest] = []
        for topic in topology.source.topics:
            self.broker.create_topic(topic, partitions=partitions, max_record_bytes=_ANY_SIZE)
        self.broker.create_topic(topology.destination)
        self.broker.create_topic(topology.dead_letters.topic, max_record_bytes=_ANY_SIZE)
        if topology.feature_log is not None:
            self.broker.create_topic(topology.feature_log.topic)
        self._begin()

    # -- what goes in

    def send(
        self,
        event: BaseModel | Mapping[str, Any] | bytes | None,
        *,
        key: str | bytes | None = None,
        timestamp: datetime | int | None = None,
        partition: int | None = None,
        headers: Headers | None = None,
        topic: str | None = None,
    ) -> str:
        """Write an event to the input topic; returns the id that its prediction or dead letter will have.

        Args:
            event: an object written as JSON, the record's bytes as they are, or ``None`` for a tombstone.
            timestamp: a datetime or ms since 1970 UTC; ``None``: now.
            partition: ``None``: by key, in turns without one.
            topic: ``None``: the first of the source's.
        """
        record = self.broker.append(
            topic or self._topology.source.topics[0],
            event if isinstance(event, bytes | None) else to_json(event),
            key=key.encode() if isinstance(key, str) else key,
            headers=headers,
            timestamp=int(timestamp.timestamp() * 1000) if isinstance(timestamp, datetime) else timestamp,
            partition=partition,
        )
        return prediction_id(f"{record.where.topic}/{record.where.partition}/", record.offset)

    def features(
        self,
        feature_set: FeatureSet,
        rows: Mapping[Entity | str | int, Mapping[str, Any]],
        *,
        event_time: datetime | None = None,
    ) -> str:
        """Give a feature set values: a loaded one gets a new version in place of the one before; in a streaming one these
        entities are written, never an older event time over a newer. Returns the version.

        Args:
            rows: values of all columns by entity; an entity is a tuple of key parts, or one key part.
            event_time: the time that the values describe; ``None``: now.
        """
        at = event_time or datetime.fromtimestamp(self.clock.now(), UTC)
        if feature_set.kind == "streaming":
            return self.store.write(feature_set.schema, rows, at)
        return self.store.load(feature_set.schema, rows, at)

    # -- time

    def advance(self, duration: str | float) -> None:
        """Let time pass: ``"50ms"``, or seconds. All that is due meanwhile happens at its time.

        Raises:
            StreamMLError: a worker would have stopped with this error.
        """
        until = self.clock.now() + seconds(duration)
        self._worker.run(until)
        for guest in self._guests:
            guest.take()
        self.clock.advance(max(0.0, until - self.clock.now()))

    def settle(self, *, within: str | float = "1h") -> None:
        """Let as much time pass as it takes until everything sent has ended and is committed.

        Raises:
            TimeoutError: something has not ended ``within`` that time, in virtual time, or the group is paused.
            StreamMLError: a worker would have stopped with this error.
        """
        self._worker.run(self.clock.now() + seconds(within))
        if self.group_state.paused:
            raise TimeoutError(f"The group is paused: {self.group_state.reason}. Call resume() to go on.")
        if not self._engine.idle or self._worker.due_at() < math.inf or self.broker.down is not None:
            reason = self._worker.last_failure or self.broker.down or self.latest_store.down or "Give it more time."
            raise TimeoutError(
                f"{self._engine.gauge.rows} records have not ended after {within}, counted in virtual time. {reason}"
            )

    # -- what a worker may go through

    def crash(self) -> None:
        """End the worker as kill −9 does, and start another one: what was not committed is read again."""
        self._worker.crash()
        self.broker.expel(self._source)
        self._begin()

    def lose_session(self) -> None:
        """End the worker's membership behind its back; it hears of that at its next poll, and joins again."""
        self.broker.expel(self._source)

    def second_member(self) -> Callable[[], None]:
        """Let another member take its share of the partitions, whose records wait; call what it returns to let it leave.

        Nobody joins while the broker does not answer.
        """
        guest = Guest(MemorySource(self.broker, self._topology.source.topics, self._topology.name, "earliest"))
        if guest.join():
            self._guests.append(guest)
        return lambda: self._part_with(guest)

    def _part_with(self, guest: Guest) -> None:
        if guest in self._guests:
            self._guests.remove(guest)
            guest.leave()

    def stop(self) -> int:
        """Shut the worker down in good order; returns the number of records that it had to abandon."""
        return self._worker.stop().abandoned

    def pause(self, reason: str = "by hand") -> None:
        """What `streamml pause` does: what is on its way is finished, and no more is taken, also after a crash."""
        state = GroupState(True, reason, "driver", int(self.clock.now() * 1000))
        self.broker.tell_group(self._topology.name, state)

    def resume(self) -> None:
        """What `streamml resume` does: end a pause, that of a storm of dead letters too."""
        self.broker.tell_group(self._topology.name, RUNNING)

    @property
    def group_state(self) -> GroupState:
        """Whether the group is paused, and why."""
        return self.broker.group_state(self._topology.name)

    # -- what came out

    def predictions(self) -> list[Prediction]:
        """All predictions so far, in the order of the topic; without one, in the order in which they went to Redis."""
        return [read_prediction(record) for record in self.broker.records(self._topology.destination)]

    def latest(self, key: str | bytes) -> Latest | None:
        """What the topology's `RedisSink` keeps of a key; ``None``: nothing, or its ttl is over."""
        return self.latest_store.get(key)

    def dead_letters(self) -> list[DeadLetter]:
        """All dead letters so far, in the order of the topic."""
        letters = map(read_letter, self.broker.records(self._topology.dead_letters.topic))
        return [letter for letter in letters if letter is not None]

    def commits(self) -> dict[TopicPartition, int]:
        """Next offset to read per partition, as far as the group has committed."""
        return self.broker.committed(self._topology.name)

    def batch_rows(self, step: str) -> Sequence[int]:
        """Rows of each batch that a step has got so far; the step's name is that of its function or model."""
        return tuple(self._worker.batch_rows[step])

    @property
    def statistics(self) -> EngineStatistics:
        """What the worker has counted: records polled, predicted, dead-lettered, filtered."""
        return self._engine.statistics

    def _begin(self) -> None:
        topology, names = self._topology, SlotNames()
        store = GuardedStore(self.store, feature_store_guard(self.clock))
        self._engine = Engine(engine_config(topology, self._models, self._settings, "driver"), names)
        self._source = MemorySource(
            self.broker,
            topology.source.topics,
            topology.name,
            topology.source.start,
            keys=reads_keys(topology),
            headers=bool(topology.sink.headers),
        )
        self._worker = VirtualWorker(
            self._engine,
            self._source,
            build_stages(topology, self._models, store, names.prefixes),
            self._sink(),
            MemoryControl(self.broker, topology.name),
            self.clock,
            max_poll_rows=self._settings.max_poll_rows,
            drain_s=self._settings.drain_ms / 1000,
            service_time=self._service_time,
        )
        self._worker.join()

    def _sink(self) -> Sink:
        kept, writer, into = (
            self._topology.redis_sink,
            MemoryLatestWriter(self.latest_store),
            self._topology.destination,
        )
        if self._settings.processing_guarantee == "exactly_once":
            sink = MemoryTransactions(self.broker, self._source)
            return sink if kept is None else TransactionsAndLatest(sink, writer, into, kept.name)
        # Where Redis alone has the predictions, a topic in memory remembers what went there, for `predictions`.
        plain = MemorySink(self.broker)
        return plain if kept is None else SinkAndLatest(plain, writer, into, kept.name)
