"""Scores dead letters again, through the topology as it is now (promise E5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from streamml.adapters.kafka.chunks import Stretch, read_chunks
from streamml.adapters.kafka.redrive_sink import RedriveSink
from streamml.adapters.kafka.tail import Located, read_topic
from streamml.batch.column import object_array
from streamml.clock import SystemClock
from streamml.compose.assemble import with_latest
from streamml.compose.parts import Parts
from streamml.compose.redrive import compose_redrive
from streamml.engine.dead_letters import DeadLetter, read_letter
from streamml.engine.pace import Pace
from streamml.errors import ConfigError
from streamml.ops.pause import who
from streamml.ops.replay.topology import without_budgets
from streamml.ops.run import StopSignal
from streamml.ports.sink import Sink
from streamml.ports.source import RawRecord, RecordRun, TopicPartition
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology

_LOG: Final = logging.getLogger("streamml.redrive")
_ROUND_BYTES: Final = 32_000_000
_ROUND_ROWS: Final = 5_000
_RUN_ROWS: Final = 1000
_BURST_S: Final = 0.1
# Who reads committed records waits for the end of a round that is a transaction, and of one that died for its time.
_ROUND_S: Final = 10.0
_TRANSACTION_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which dead letters; what is not given does not matter.

    Args:
        reason: name of the error.
        step: that failed them.
        since_ms, until_ms: when they were written, from the first up to, without, the second.
        ids: prediction ids.
    """

    reason: str | None = None
    step: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    ids: frozenset[str] = frozenset()

    def __contains__(self, letter: DeadLetter) -> bool:
        return (
            (self.reason is None or letter.error == self.reason)
            and (self.step is None or letter.step == self.step)
            and (self.since_ms is None or letter.time_ms >= self.since_ms)
            and (self.until_ms is None or letter.time_ms < self.until_ms)
            and (not self.ids or letter.id in self.ids)
        )


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of dead letters: how many were scored (or dropped on purpose) and taken out, and how many failed again."""

    gone: int = 0
    failed: int = 0

    def __add__(self, other: Redriven) -> Redriven:
        return Redriven(self.gone + other.gone, self.failed + other.failed)


_Places = dict[bytes, tuple[int, int]]


def find_places(topology: Topology, settings: Settings, chosen: Chosen) -> _Places:
    """Where in their topic the chosen letters are, by key: a place is kept of each, and nothing of its content.

    Raises:
        ConfigError: there is no topic, or no letter of an id that was asked for.
        SourceUnavailable: the broker does not answer.
    """
    found: _Places = {}
    for one in read_topic(settings.client(), topology.dead_letters.topic):
        key = one.record.key or b""
        found.pop(key, None)
        letter = read_letter(one.record)
        if (
            letter is not None
            and letter in chosen
            and letter.topic in topology.source.topics
            and _is_at_place(letter, key)
        ):
            found[key] = (one.partition.partition, one.offset)
    unknown = chosen.ids - {key.decode(errors="replace") for key in found}
    if unknown:
        raise ConfigError(
            [f"There is no dead letter {id!r} in {topology.dead_letters.topic} as asked for." for id in sorted(unknown)]
        )
    return found


def _is_at_place(letter: DeadLetter, key: bytes) -> bool:
    """Whether its key is the id that its record has. Of another, a copy's, no outcome would ever be heard."""
    prefix, _, place = letter.id.rpartition("/")
    offset, mark, child = place.partition("#")
    numbered = offset == str(letter.offset) and child.isdecimal() == bool(mark)
    return numbered and prefix.endswith(f"/{letter.partition}") and letter.id.encode() == key


def redrive(
    topology: Topology,
    parts: Parts,
    settings: Settings,
    places: _Places,
    stop: StopSignal,
    *,
    rate: float | None = None,
    told: Callable[[Redriven], None] = lambda so_far: None,
) -> Redriven:
    """Score dead letters again, into the live prediction topic.

    In rounds of bounded bytes. A letter is taken out when its prediction is acknowledged; one that fails again is written anew
    under its key. Interrupted between the two, it is scored again the next time: its prediction has the same id and revision,
    and with ``processing_guarantee = "exactly_once"`` a round is one transaction.

    Args:
        parts: of the topology.
        rate: records a second; ``None``: as many as can be.
        stop: ends it after the round that is under way.
        told: hears what was done so far, after each round.

    Raises:
        ConfigError: topology or models are wrong.
        StreamMLError: it had to stop; what was not done stays a dead letter.
    """
    if parts.problems:
        raise ConfigError(parts.problems)
    # The feature log is in the order of offsets, and these come behind their time.
    logless = replace(topology, dead_letters=replace(topology.dead_letters, max_ratio=1.0), feature_log=None)
    scoring = without_budgets(logless)
    pace, done, left = Pace(rate, SystemClock().now()), Redriven(), _Left(topology, settings, places)
    for letters in _rounds(topology, settings, left.places, rate):
        if stop.asked.is_set():
            break
        done += _round(scoring, parts, settings, letters, left, pace, rate, stop)
        told(done)
    return done


class _Left:
    """Letters that are still as they were found: another redrive, or a purge, may have come first."""

    def __init__(self, topology: Topology, settings: Settings, places: _Places) -> None:
        self.places = dict(places)
        self._client = settings.client()
        self._topic = topology.dead_letters.topic
        self._starts: dict[int, int] = {}
        for partition, offset in places.values():
            self._starts[partition] = min(offset, self._starts.get(partition, offset))

    def among(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Those of them that are left, after a look at what was written since the last one."""
        for chunk in read_chunks(self._client, self._topic, Stretch(self._starts)):
            rows = zip(chunk.keys(), chunk.partitions().tolist(), chunk.offsets().tolist(), strict=True)
            for key, partition, offset in rows:
                self._starts[partition] = offset + 1
                known = self.places.get(key or b"")
                if known is not None and known[0] == partition and known[1] < offset:
                    del self.places[key or b""]
        return [one for one in letters if one.id.encode() in self.places]


def _rounds(topology: Topology, settings: Settings, places: _Places, rate: float | None) -> Iterator[list[DeadLetter]]:
    """Letters that lie in the same topics, as many at once as are bounded."""
    most = _ROUND_ROWS if rate is None else max(1, min(_ROUND_ROWS, int(rate * _ROUND_S)))
    letters: list[DeadLetter] = []
    size, ids = 0, dict[str, str]()
    for letter in _chosen_letters(read_topic(settings.client(), topology.dead_letters.topic), places):
        value_bytes = len(letter.value or b"")
        topic_id = _topic_id(letter)
        full = len(letters) >= most or size + value_bytes > _ROUND_BYTES
        if letters and (full or ids.get(letter.topic, topic_id) != topic_id):
            yield letters
            letters, size, ids = [], 0, {}
        letters.append(letter)
        size += value_bytes
        ids[letter.topic] = topic_id
    if letters:
        yield letters


def _chosen_letters(records: Iterator[Located], places: _Places) -> Iterator[DeadLetter]:
    for one in records:
        if places.get(one.record.key or b"") == (one.partition.partition, one.offset):
            letter = read_letter(one.record)
            assert letter is not None
            yield letter


def _round(
    topology: Topology,
    parts: Parts,
    settings: Settings,
    found: Sequence[DeadLetter],
    left: _Left,
    pace: Pace,
    rate: float | None,
    stop: StopSignal,
) -> Redriven:
    group = settings.group or topology.name
    client = dict(settings.producer())
    if settings.worker.processing_guarantee == "exactly_once":
        client |= {"transactional.id": f"{group}/redrive", "transaction.timeout.ms": _TRANSACTION_MS}
    attempts: dict[bytes, int] = {}
    sink = RedriveSink(client, topology.dead_letters.topic, attempts)
    every = with_latest(sink, topology, settings)
    # Whoever does the same has ended his round behind this, or lost it.
    every.open()
    try:
        letters = left.among(found)
        attempts.update((letter.id.encode(), letter.attempts) for letter in letters)
        if not letters or not _scored(topology, parts, settings, letters, every, pace, rate, stop):
            sink.abort()
            return Redriven()  # Stopped in the middle: what is not taken out is tried again the next time.
        gone = sink.finish(int(SystemClock().now() * 1000))
    except BaseException:
        sink.abort()
        raise
    return Redriven(gone, len(attempts) - gone)


def _scored(
    topology: Topology,
    parts: Parts,
    settings: Settings,
    letters: Sequence[DeadLetter],
    sink: Sink,
    pace: Pace,
    rate: float | None,
    stop: StopSignal,
) -> bool:
    """Whether all of them were, before anybody asked to stop."""
    ids = frozenset(letter.id for letter in letters)
    runs = _runs(letters, _RUN_ROWS if rate is None else max(1, min(_RUN_ROWS, int(rate * _BURST_S))))
    records = sum(map(len, runs))
    topic_ids = {letter.topic: _topic_id(letter) for letter in letters}
    made = compose_redrive(topology, parts, settings, runs, ids, topic_ids, sink, f"redrive by {who()}", pace)
    made.worker.run(until=lambda engine: stop.asked.is_set() or (engine.statistics.polled >= records and engine.idle))
    return made.engine.statistics.polled >= records and made.engine.idle


def _topic_id(letter: DeadLetter) -> str:
    return letter.id.rsplit("/", 2)[0]


def _runs(letters: Sequence[DeadLetter], rows: int) -> list[RecordRun]:
    """The records of letters at their original places; a record of which several children failed comes once."""
    by_place: dict[TopicPartition, dict[int, DeadLetter]] = {}
    for letter in letters:
        by_place.setdefault(TopicPartition(letter.topic, letter.partition), {})[letter.offset] = letter
    runs: list[RecordRun] = []
    for where, found in by_place.items():
        ordered = [found[offset] for offset in sorted(found)]
        parts = (ordered[at : at + rows] for at in range(0, len(ordered), rows))
        runs += [_run(where, part) for part in parts]
    return runs


def _run(where: TopicPartition, letters: Sequence[DeadLetter]) -> RecordRun:
    count = len(letters)
    records = [RawRecord(one.key, one.value, list(one.headers), one.timestamp) for one in letters]
    return RecordRun(
        partition=where,
        offsets=np.fromiter((one.offset for one in letters), np.int64, count),
        timestamps=np.fromiter((one.timestamp for one in letters), np.int64, count),
        values=object_array((one.value for one in letters), count),
        keys=object_array((one.key for one in letters), count),
        headers=object_array((one.headers for one in records), count),
        size_bytes=sum(len(one.value or b"") + len(one.key or b"") for one in letters),
        records=records,
    )
