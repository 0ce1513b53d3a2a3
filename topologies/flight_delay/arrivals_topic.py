"""The topic of arrivals as a whole: whether it is as it has to be, and what it held before some place."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan, TopicInfo
from streamml.adapters.kafka.client import headers_of
from streamml.adapters.kafka.probe import GroupProbe
from streamml.adapters.kafka.stretch import StretchReader
from streamml.compose.surroundings import LETTER_OVERHEAD
from streamml.errors import ConfigError
from streamml.ops.topics import letters_plan
from streamml.ports.source import RawRecord, TopicPartition
from streamml.settings.settings import Settings
from topologies.flight_delay.arrivals import WINDOW, Arrival
from topologies.flight_delay.recent_state import ALWAYS, NotAnArrival, RecentState, read_arrival

ARRIVALS: Final = "arrivals"
DEAD_LETTERS: Final = "arrivals.dlq"
_FIRST_LOOK: Final = 2_000

Record = tuple[int, RawRecord]
"""Offset and record."""


def check_topics(settings: Settings, arrivals: str, dead_letters: str, *, create: bool) -> str:
    """Whether both topics are there and fit to be followed; returns the id of the topic of arrivals.

    Args:
        create: make what is missing.

    Raises:
        ConfigError: every problem, with its remedy.
        SourceUnavailable, FatalError: the broker does not answer, or refuses.
    """
    admin = KafkaAdmin(settings.client())
    if create:
        admin.create([NewTopicPlan(arrivals, 1), letters_plan(dead_letters)])
    there = admin.topics([arrivals, dead_letters])
    problems = [
        f"There is no topic {name!r}; start with --create-topics, or make it ({how})."
        for name, how in ((arrivals, "one partition"), (dead_letters, "compacted"))
        if name not in there
    ]
    if arrivals in there and there[arrivals].partitions != 1:
        problems.append(
            f"Topic {arrivals!r} has {there[arrivals].partitions} partitions and must have one: the window of a carrier needs all "
            "of its arrivals in order, as that of an airport does, and no key keeps both together. One partition carries "
            "thousands of arrivals per second; copy the topic into one of one partition, and name that by --topic."
        )
    if len(there) == 2:
        problems += _of_size(there[arrivals], there[dead_letters])
    if problems:
        raise ConfigError(problems)
    return there[arrivals].id


def _of_size(arrivals: TopicInfo, letters: TopicInfo) -> Iterator[str]:
    """What this client may not see is not judged."""
    least = arrivals.max_message_bytes + LETTER_OVERHEAD
    if arrivals.configuration_shown and letters.configuration_shown and letters.max_message_bytes < least:
        yield (
            f"Topic {letters.name!r} takes {letters.max_message_bytes} bytes at most, and {arrivals.name!r} {arrivals.max_message_bytes}: "
            f"a dead letter is larger than its record. Set its max.message.bytes to {least} or more."
        )


class ArrivalsTopic:
    """Reads the topic outside of any group. Calls come from one thread at a time."""

    def __init__(self, settings: Settings, topic: str, group: str, disorder: timedelta) -> None:
        """
        Args:
            disorder: of some thousand arrivals in a row, one at least is not later than this behind the latest before it.
        """
        # Faust reads what aborted transactions left, and what is read here has to be the same.
        client = {**settings.client(), "isolation.level": "read_uncommitted"}
        self._where = TopicPartition(topic, 0)
        self._reader = StretchReader(client, self._where)
        self._probe = GroupProbe(settings.client(), group)
        self._disorder = disorder

    def committed(self) -> int:
        """The group's position: next offset; the first that is there where it has none.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        low, _ = self._reader.bounds()
        return max(low, self._probe.committed([self._where]).get(self._where, low))

    def end(self) -> int:
        """Next offset to be written.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        return self._probe.ends([self._where])[self._where]

    def between(self, start: int, end: int) -> Iterator[Record]:
        """Records from ``start`` up to, without, ``end``.

        Raises:
            SourceUnavailable, OffsetOutOfRange: the broker does not answer, or has them no more.
        """
        self._reader.read(start, end)
        while messages := self._reader.poll():
            for message in messages:
                raw = RawRecord(message.key(), message.value(), headers_of(message), message.timestamp()[1])
                yield message.offset(), raw

    def state_at(self, offset: int, floor: datetime | None = None) -> RecentState:
        """The windows as the records before ``offset`` make them, read backwards as far as it takes.

        Args:
            floor: which windows have to be complete: those that begin then or later; ``None``: those of all entities that had an
                arrival within the allowed disorder of the latest.

        Raises:
            SourceUnavailable, OffsetOutOfRange: as `between`.
        """
        low, _ = self._reader.bounds()
        pieces: list[list[Arrival]] = []
        start, size = offset, _FIRST_LOOK
        while start > low:
            end, start = start, max(low, start - size)
            pieces.append(self._arrivals(start, end))
            size *= 2
            if not pieces[-1]:
                continue
            reached = max(one.arrived_at for one in pieces[-1]) + self._disorder
            if reached <= (floor or _latest(pieces) - WINDOW - self._disorder):
                break
        else:
            reached = ALWAYS
        state = RecentState(reached)
        for piece in reversed(pieces):
            state.add(piece)
        return state

    def _arrivals(self, start: int, end: int) -> list[Arrival]:
        found: list[Arrival] = []
        for _, record in self.between(start, end):
            try:
                found += [] if record.value is None else [read_arrival(record.value, time_of(record))]
            except NotAnArrival:
                # It is a dead letter already: positions move behind those.
                continue
        return found

    def close(self) -> None:
        self._reader.close()
        self._probe.close()


def time_of(record: RawRecord) -> int | None:
    """A record's time in ms since 1970 UTC, where it has one."""
    return record.timestamp if record.timestamp >= 0 else None


def _latest(pieces: list[list[Arrival]]) -> datetime:
    return max(one.arrived_at for piece in pieces for one in piece)
