"""A worker that drains a given range of its topics into a topic of its own, with one of its parts made free or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from streamml.adapters.kafka.sink import KafkaSink
from streamml.adapters.kafka.source import KafkaSource
from streamml.adapters.synthetic.feature_store import RememberingStore
from streamml.adapters.synthetic.sink import DiscardingSink
from streamml.adapters.synthetic.source import PreparedSource
from streamml.compose.assemble import Assembled, Ports, assemble, with_latest
from streamml.compose.parts import Parts
from streamml.compose.stages import engine_config, reads_keys
from streamml.engine.assignment import SlotNames
from streamml.engine.engine import EngineConfig
from streamml.ports.feature_store import FeatureStore
from streamml.ports.sink import Sink
from streamml.ports.source import RecordRun, Source
from streamml.settings.settings import Settings
from streamml.stages.free import Free, Learning
from streamml.stages.stage import Operator
from streamml.telemetry.observer import Observer
from streamml.topology.topology import RedisSink, Topology

READ = "read"
PRODUCE = "produce"
MEMORY = "features from memory"
Around = Callable[[Operator], Operator]


@dataclass(frozen=True, slots=True)
class Ends:
    """What a drain reads and writes with.

    Args:
        source: makes a source that begins at the start of the range.
        sink: makes a sink.
        store: where features are; ``None`` where none are looked up.
    """

    source: Callable[[], Source]
    sink: Callable[[], Sink]
    store: FeatureStore | None


class DrainFactory:
    """Makes workers that drain one range and differ in one part."""

    def __init__(self, topology: Topology, parts: Parts, settings: Settings, ends: Ends, runs: list[RecordRun]) -> None:
        """
        Args:
            topology: with the topics that are to be written to.
            parts: of the topology.
            runs: the records of the range.
        """
        self._topology = topology
        self._parts = parts
        self._settings = settings
        self._ends = ends
        self._runs = runs
        self._memory = RememberingStore(ends.store) if ends.store is not None else None
        self._learnt: list[Learning] = []

    @property
    def steps(self) -> list[str]:
        """What can be made free, in the order of an event's way. After the drain of `learning` has been run."""
        features = [] if self._memory is None else [MEMORY]
        return [READ, *(name for name, one in self._named() if one.answer is not None), *features, PRODUCE]

    @property
    def fixed(self) -> list[str]:
        """Steps that cannot be made free, as they drop rows or make some."""
        return [name for name, one in self._named() if one.answer is None]

    def learning(self, observer: Observer) -> Assembled:
        """Everything is real, and what the steps answer is kept."""

        def around(operator: Operator) -> Operator:
            self._learnt.append(Learning(operator))
            return self._learnt[-1]

        return self._drain(None, observer, around)

    def drain(self, free: str | None, observer: Observer, outer: Around = lambda operator: operator) -> Assembled:
        """``free`` costs nothing; with ``None`` everything is real. ``outer`` is what each real operator is exchanged for."""
        learnt = iter(self._named())

        def around(operator: Operator) -> Operator:
            name, one = next(learnt)
            return Free(name, one.answer) if name == free and one.answer is not None else outer(operator)

        return self._drain(free, observer, around)

    def _named(self) -> list[tuple[str, Learning]]:
        """Operators in order, by names of their own: functions may share one, and a model may be run twice."""
        before = Counter[str]()
        named: list[tuple[str, Learning]] = []
        for one in self._learnt:
            before[one.name] += 1
            named.append((one.name if before[one.name] == 1 else f"{one.name} ({before[one.name]})", one))
        return named

    def _drain(self, free: str | None, observer: Observer, around: Around) -> Assembled:
        names = SlotNames()
        store = self._memory if free == MEMORY else self._ends.store
        source = PreparedSource(self._runs) if free == READ else self._ends.source()
        sink = DiscardingSink() if free == PRODUCE else self._ends.sink()
        ports = Ports(source, sink, store)
        return assemble(
            self._topology, self._parts.models, self._settings, ports, names, self._config(), observer, around=around
        )

    def _config(self) -> EngineConfig:
        """As a worker's, but at least once, and no record is too old to be scored: all of them are."""
        config = engine_config(self._topology, self._parts.models, self._settings.worker, "profile")
        stages = [replace(one, budget=one.budget and replace(one.budget, on_late="score")) for one in config.stages]
        return replace(config, stages=tuple(stages), exactly_once=False)


def kafka_source(topology: Topology, settings: Settings, group: str) -> KafkaSource:
    """A source as a worker has it, for a group whose positions are set already; nobody watches over it."""
    return KafkaSource(
        topology.source.topics,
        group,
        topology.source.start,
        settings.consumer(),
        keys=reads_keys(topology),
        headers=bool(topology.sink.headers),
    )


def worker_sink(topology: Topology, settings: Settings) -> Sink:
    """A sink as a worker has it, at least once."""
    return with_latest(KafkaSink(settings.producer()), topology, settings)


def written_to(topology: Topology, topic: str) -> Topology:
    """The topology with everything that it writes going to ``topic``, whatever share of it is dead letters.

    What a `RedisSink` keeps goes to keys that are no prediction's, and is gone after a minute.
    """
    letters = replace(topology.dead_letters, topic=topic, max_ratio=1.0)
    log = topology.feature_log and replace(topology.feature_log, topic=topic)
    sink, latest = topology.sink, topology.latest and _kept_apart(topology.latest, topic)
    apart = _kept_apart(sink, topic) if isinstance(sink, RedisSink) else sink.into(topic)
    return replace(topology, sink=apart, dead_letters=letters, feature_log=log, latest=latest)


def _kept_apart(sink: RedisSink, topic: str) -> RedisSink:
    return replace(sink, name=f"{sink.name}:{topic}", ttl="1m")
