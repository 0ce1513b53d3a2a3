"""Which step holds a topology up: found by making one step at a time free.

The theory of constraints (E. Goldratt, The Goal, 1984) on the real thing: a chain is as fast as its slowest link, so what a
step costs the whole is what the whole gains without it. A profile of functions does not tell that, as waiting, threads and
Python's lock are shared by all of them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan, TopicInfo
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.adapters.models.torch_trace import check_trace, traced
from streamml.compose.assemble import Assembled
from streamml.compose.drain import (
    DrainFactory,
    Ends,
    kafka_source,
    worker_sink,
    written_to,
)
from streamml.compose.locate import Located
from streamml.compose.parts import gather
from streamml.compose.surroundings import examine
from streamml.engine.engine import Engine
from streamml.engine.events import Settled, StageResult
from streamml.errors import ConfigError, FatalError
from streamml.ops.constraint import BASELINE, judged
from streamml.ops.topics import LETTER_BYTES
from streamml.ports.source import Positions, RecordRun, Source, TopicPartition
from streamml.settings.settings import Settings
from streamml.stages.free import Ranged
from streamml.telemetry.observer import Observer
from streamml.topology.topology import Topology

LEAST: Final = 1_000
_STALLED_S: Final = 60.0
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """How much is measured.

    Args:
        events: the latest so many records of the input topics are drained again and again.
        rounds: each variant is drained so often, in turn; medians count.
        baseline_only: drain with everything real and nothing else, for a profiler to look at.
        torch_trace: also drain once with everything real under PyTorch's profiler, and write its trace here.
    """

    events: int = 100_000
    rounds: int = 3
    baseline_only: bool = False
    torch_trace: Path | None = None


@dataclass(slots=True)
class _Stopwatch(Observer):
    """Notes when the first batch began and when the last row was settled, in seconds of the performance counter."""

    begun: float | None = None
    ended: float = 0.0
    heard: Callable[[], None] = lambda: None

    def staged(self, result: StageResult) -> None:
        """See `Observer.staged`."""
        if self.begun is None:
            self.begun = time.perf_counter() - sum(timing.seconds for timing in result.timings)
        Observer.staged(self, result)

    def settled(self, settled: Settled, now: float) -> None:
        """See `Observer.settled`."""
        self.ended = time.perf_counter()
        Observer.settled(self, settled, now)
        self.heard()

    def rate(self, rows: int) -> float:
        """Rows per second."""
        return rows / (self.ended - self.begun) if self.begun is not None and self.ended > self.begun else 0.0


def profile(located: Located[Topology], settings: Settings, options: ProfileOptions, tell: Tell) -> dict[str, Any]:
    """Drain the latest records of the input, first with everything real and then with one step free at a time.

    Reads the input with groups of its own and writes to a topic of its own, which are deleted at the end; the topology's
    group, its prediction topic and its dead letters are not touched.

    Returns:
        ``events``, ``rounds``, ``events_per_s`` (everything real), ``steps`` (each ``free``, ``events_per_s``, ``speed_up``,
        ``share``: of the time that an event takes), ``constraint`` (a step or ``None``) and ``advice``.

    Raises:
        ConfigError: the topology, what is around it or the number of records is wrong.
        StreamMLError: a drain ended before its time.
    """
    topology = located.found
    if options.torch_trace is not None:
        check_trace(options.torch_trace)
    with gather(topology, located.repository, settings) as parts:
        topics = examine(topology, parts, settings).topics_if_sound()
        start, events = _range(topology, settings, options.events)
        with _scratch(topology, topics, settings) as scratch:
            scratched = written_to(topology, scratch.topic)
            ends = Ends(
                lambda: kafka_source(scratched, settings, scratch.group(start)),
                lambda: worker_sink(scratched, settings),
                parts.store,
            )
            tell(f"Reading {events:,} records")
            runs = read_runs(ends.source(), events)
            factory = DrainFactory(scratched, parts, settings, ends, runs)
            rates = measure(factory, events, options, tell)
            if options.torch_trace is not None:
                tell("Drawing the trace")
                _trace(factory, events, options.torch_trace)
    return {"events": events, "rounds": options.rounds, **judged(rates, topology)}


def measure(factory: DrainFactory, events: int, options: ProfileOptions, tell: Tell) -> dict[str, list[float]]:
    """Rows per second of each variant in each round, and of none for steps that cannot be made free."""
    # What is new is slower once, so that this one does not count.
    _drained(factory.learning(stopwatch := _Stopwatch()), stopwatch, events)
    variants = [BASELINE, *([] if options.baseline_only else factory.steps)]
    rates: dict[str, list[float]] = {name: [] for name in (*variants, *factory.fixed)}
    for number in range(options.rounds):
        # Each round begins with another one, as whoever comes first meets colder caches.
        first = number % len(variants)
        for variant in variants[first:] + variants[:first]:
            free = None if variant == BASELINE else variant
            told = BASELINE if free is None else f"without the cost of {free}"
            tell(f"Round {number + 1} of {options.rounds}: {told}")
            stopwatch = _Stopwatch()
            rates[variant].append(_drained(factory.drain(free, stopwatch), stopwatch, events))
    return rates


def _trace(factory: DrainFactory, events: int, file: Path) -> None:
    with traced(file) as ranges:
        drain = factory.drain(None, stopwatch := _Stopwatch(), lambda operator: Ranged(operator, ranges))
        _drained(drain, stopwatch, events)


def _drained(drain: Assembled, stopwatch: _Stopwatch, events: int) -> float:
    """Run it to the end of the range; rows per second.

    Raises:
        FatalError: nothing came any more before the end.
    """
    moved = [0, time.monotonic()]
    done = drain.engine.statistics

    def end_when_all_is_settled() -> None:
        if done.polled >= events and drain.engine.idle:
            drain.worker.request_stop()

    def stalled(engine: Engine) -> bool:
        if done.polled != moved[0] or not engine.idle:
            moved[:] = [done.polled, time.monotonic()]
        elif time.monotonic() - moved[1] > _STALLED_S:
            raise FatalError(
                f"{done.polled} of {events} records came, and no other for {_STALLED_S:.0f} s: were records deleted meanwhile?"
            )
        return False

    stopwatch.heard = end_when_all_is_settled
    drain.worker.run(until=stalled)
    return stopwatch.rate(done.polled)


def _range(topology: Topology, settings: Settings, wanted: int) -> tuple[Positions, int]:
    """Where the latest ``wanted`` records begin, about as many of each partition, and how many there are.

    Raises:
        ConfigError: there are fewer than a thousand.
    """
    offsets = KafkaOffsets(settings.client())
    bounds = offsets.bounds(offsets.partitions(topology.source.topics))
    start: dict[TopicPartition, int] = {}
    left = wanted
    # Those with few records first, so that what they lack is taken from the others.
    for behind, (where, (low, high)) in enumerate(sorted(bounds.items(), key=lambda one: one[1][1] - one[1][0])):
        share = min(high - low, left // (len(bounds) - behind))
        start[where] = high - share
        left -= share
    events = wanted - left
    if events < LEAST:
        raise ConfigError(
            f"{', '.join(topology.source.topics)} has {events} records, and a profile needs {LEAST:,} at least to say "
            "anything: let events come in, or produce some."
        )
    return start, events


def read_runs(source: Source, events: int) -> list[RecordRun]:
    """The records of the range, as the client gives them."""
    listener = _Deaf()
    runs: list[RecordRun] = []
    rows, deadline = 0, time.monotonic() + _STALLED_S
    source.open(listener)
    try:
        while rows < events and time.monotonic() < deadline:
            found = source.poll(1_000, 0.5)
            runs += found
            rows += sum(map(len, found))
    finally:
        source.close()
    if rows < events:
        raise FatalError(
            f"{rows} of {events} records could be read in {_STALLED_S:.0f} s. Compacted topics and those written in "
            "transactions have fewer records than offsets; ask for fewer --events."
        )
    return runs


class _Deaf:
    """A listener that has nothing to do."""

    def assigned(self, positions: Positions) -> None:
        """See `SourceListener.assigned`."""

    def revoking(self, partitions: Sequence[TopicPartition]) -> Positions:
        """See `SourceListener.revoking`."""
        return {}

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """See `SourceListener.lost`."""


class _Scratch:
    """A topic to write to, and groups to read with."""

    def __init__(self, name: str, settings: Settings, topic_ids: Mapping[str, str]) -> None:
        self.topic = name
        self.groups: list[str] = []
        self._offsets = KafkaOffsets(settings.client())
        self._topic_ids = topic_ids

    def group(self, start: Positions) -> str:
        """A new group that begins at ``start``."""
        self.groups.append(f"{self.topic}-{len(self.groups)}")
        self._offsets.commit(self.groups[-1], start, self._topic_ids)
        return self.groups[-1]


@contextmanager
def _scratch(topology: Topology, topics: Mapping[str, TopicInfo], settings: Settings) -> Iterator[_Scratch]:
    """Made for the time of a profile."""
    admin = KafkaAdmin(settings.client())
    like = topology.sink.topic or topology.source.topics[0]
    name = f"{topology.sink.topic or topology.name}.profile-{uuid.uuid4().hex[:8]}"
    config = {"max.message.bytes": str(LETTER_BYTES), "retention.ms": "3600000"}
    admin.create([NewTopicPlan(name, topics[like].partitions, 1, config)])
    scratch = _Scratch(name, settings, {one: topics[one].id for one in topology.source.topics})
    try:
        yield scratch
    finally:
        admin.delete_topics([name])
        admin.delete_groups(scratch.groups)
