"""Reads a feature log back: the features of a stretch of a source partition, in its order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streamml.adapters.kafka.partitioner import partition_of
from streamml.adapters.kafka.stretch import StretchReader
from streamml.engine.feature_log import LogSchema, partition_key
from streamml.errors import FatalError
from streamml.ports.feature_log import LoggedRows
from streamml.ports.source import TopicPartition

_FIRST_STEP: Final = 64
_GROWTH: Final = 4


@dataclass(frozen=True, slots=True)
class KafkaFeatureLog:
    """A feature log on the broker; see `docs/reference/feature-log.md`.

    Args:
        client: librdkafka properties of a consumer.
        topic: of the log.
        partitions: how many the topic has.
        schema: of its records.
    """

    client: Mapping[str, Any]
    topic: str
    partitions: int
    schema: LogSchema

    def open(self, prefix: str) -> LoggedPartition:
        """What the log holds of one source partition, given the prefix of its prediction ids.

        Raises:
            SettingsError: librdkafka refuses a property.
        """
        key = partition_key(prefix)
        where = TopicPartition(self.topic, partition_of(key, self.partitions))
        return LoggedPartition(StretchReader(self.client, where), where, key, self.schema)


class LoggedPartition:
    """The rows of one source partition in the log; close it. Calls come from one thread.

    What raises `TransientError` may be called again and loses nothing.
    """

    def __init__(self, reader: StretchReader, where: TopicPartition, key: bytes, schema: LogSchema) -> None:
        self._reader = reader
        self._where = where
        self._key = key
        self._schema = schema
        self._waiting: deque[LoggedRows] = deque()
        # Offset and child of the last row that was given: what is not above it is a repetition after a crash.
        self._seen = (-1, -1)

    def seek(self, offset: int, since_ms: int) -> int | None:
        """Have `next` begin where the log has the record at ``offset``, or in the rows before it.

        Args:
            since_ms: time of that record, or before; the log of it was hardly written earlier, and if it was, it is found.

        Returns:
            Offset of the first row that `next` will give; over ``offset`` where the log has nothing up to there. ``None``: it
            has nothing at all of this partition.

        Raises:
            SourceUnavailable: the broker does not answer.
            FatalError: what is there is no record of this log.
        """
        low, high = self._reader.bounds()
        found = self._reader.offset_at(since_ms)
        at, step = high if found is None else max(low, found), _FIRST_STEP
        while True:
            self._waiting.clear()
            self._seen = (-1, -1)
            self._reader.read(at, high)
            first = self._peek()
            if (first is not None and first <= offset) or at == low:
                return first
            at, step = max(low, at - step), step * _GROWTH

    def last(self) -> int:
        """Offset of the last row in the log; -1: there is none. `seek` has to follow."""
        low, high = self._reader.bounds()
        at, step = high, _FIRST_STEP
        while at > low:
            end, at, step = at, max(low, at - step), step * _GROWTH
            self._reader.read(at, end)
            found = [int(rows.offset[-1]) for rows in self._decoded()]
            if found:
                return max(found)
        return -1

    def next(self) -> LoggedRows | None:
        """The next rows, none of which was given before since `seek`; ``None`` at what was the log's end then."""
        self._peek()
        if not self._waiting:
            return None
        return self._waiting.popleft()

    def close(self) -> None:
        self._reader.close()

    def _peek(self) -> int | None:
        while not self._waiting and not self._reader.ended:
            for rows in map(self._new, self._poll()):
                if len(rows):
                    self._waiting.append(rows)
                    self._seen = int(rows.offset[-1]), int(rows.children[-1])
        return int(self._waiting[0].offset[0]) if self._waiting else None

    def _decoded(self) -> Iterator[LoggedRows]:
        while not self._reader.ended:
            yield from self._poll()

    def _poll(self) -> list[LoggedRows]:
        messages = (one for one in self._reader.poll() if one.key() == self._key)
        return [rows for rows in map(self._decode, messages) if len(rows)]

    def _decode(self, message: Any) -> LoggedRows:
        try:
            return self._schema.decode(message.value() or b"")
        except ValueError as error:
            raise FatalError(
                f"The feature log cannot be read at {self._where}, offset {message.offset()}: {error} Read it with the "
                "topology that wrote it."
            ) from error

    def _new(self, rows: LoggedRows) -> LoggedRows:
        offset, child = self._seen
        if rows.offset[0] > offset:
            return rows
        return rows.take((rows.offset > offset) | ((rows.offset == offset) & (rows.children > child)))


class RecordedOnKafka:
    """Gives back features as they were used; see `streamml.ports.feature_log.RecordedFeatures` for the contract.

    It holds the rows of one call, and those of its last record that are beyond, for each source partition.
    """

    def __init__(self, log: KafkaFeatureLog) -> None:
        self._log = log
        self._open: dict[str, tuple[LoggedPartition, deque[LoggedRows]]] = {}
        self._nothing = log.schema.nothing()

    def rows(self, prefix: str, first: int, last: int, since_ms: int) -> LoggedRows:
        """See `RecordedFeatures.rows`."""
        partition, held = self._opened(prefix, first, since_ms)
        while held and held[0].offset[-1] < first:
            held.popleft()
        while not held or held[-1].offset[-1] <= last:
            more = partition.next()
            if more is None:
                break
            if more.offset[-1] >= first:
                held.append(more)
        return _between(LoggedRows.join([self._nothing, *held]), first, last)

    def _opened(self, prefix: str, first: int, since_ms: int) -> tuple[LoggedPartition, deque[LoggedRows]]:
        if prefix not in self._open:
            partition = self._log.open(prefix)
            try:
                partition.seek(first, since_ms)
            except BaseException:
                partition.close()
                raise
            self._open[prefix] = partition, deque()
        return self._open[prefix]

    def close(self) -> None:
        """Close its connections."""
        for partition, _ in self._open.values():
            partition.close()
        self._open.clear()


def _between(rows: LoggedRows, first: int, last: int) -> LoggedRows:
    start, end = np.searchsorted(rows.offset, (first, last + 1)).tolist()
    return rows.take(slice(start, end))


def missing(log: KafkaFeatureLog, prefix: str, stretch: Sequence[int], since_ms: int) -> list[tuple[int, int]]:
    """Which ends of a stretch (first offset, one behind the last) of a source partition the log does not reach.

    Rows in its middle may be missing besides: those that became dead letters or were filtered out.

    Raises:
        SourceUnavailable: the broker does not answer.
        FatalError: what is there is no record of this log.
    """
    start, end = stretch
    partition = log.open(prefix)
    try:
        last = partition.last()
        if last < start:
            return [(start, end)]
        first = partition.seek(start, since_ms)
        found = [(start, first)] if first is not None and first > start else []
        return found + ([(last + 1, end)] if last + 1 < end else [])
    finally:
        partition.close()
