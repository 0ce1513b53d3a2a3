"""Reads a stretch of one partition, outside of any group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as ClientPartition

from streamml.adapters.kafka.bounds import bounds_of, offsets_of_times
from streamml.adapters.kafka.client import (
    OUT_OF_RANGE,
    OUTSIDE_OF_GROUPS,
    Trouble,
    error_of,
    opened,
    passes,
    translated,
)
from streamml.errors import SourceUnavailable
from streamml.ports.source import TopicPartition

_TIMEOUT_S: Final = 10.0
_AT_ONCE: Final = 2_000
_BOUNDS: Final = {
    "queued.max.messages.kbytes": 4096,
    "fetch.message.max.bytes": 2_000_000,
    # An end is told with the next answer, even if that brings nothing.
    "fetch.wait.max.ms": 50,
    "auto.offset.reset": "error",
}


class StretchReader:
    """Records of one partition in order, as the client's messages. One stretch at a time; calls come from one thread."""

    def __init__(self, client: Mapping[str, Any], where: TopicPartition) -> None:
        """
        Args:
            client: librdkafka properties.
        """
        self._trouble = Trouble()
        self._consumer: Any = opened(Consumer, {**client, **OUTSIDE_OF_GROUPS, **_BOUNDS}, self._trouble)
        self._where = where
        self._end = 0
        self._at = 0

    def bounds(self) -> tuple[int, int]:
        """First offset that is there, and the one behind the last.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        with translated(trouble=self._trouble):
            return bounds_of(self._consumer, ClientPartition(*self._where), _TIMEOUT_S)

    def offset_at(self, time_ms: int) -> int | None:
        """Offset of the first record of that time (ms since 1970 UTC) or later; ``None``: there is none."""
        with translated(trouble=self._trouble):
            (found,) = offsets_of_times(self._consumer, [ClientPartition(*self._where, time_ms)], _TIMEOUT_S)
        return int(found.offset) if found.offset >= 0 else None

    def read(self, start: int, end: int) -> None:
        """From now on, `poll` gives the records from ``start`` up to, without, ``end``."""
        self._at, self._end = start, end
        with translated(trouble=self._trouble):
            self._consumer.assign([ClientPartition(*self._where, start)] if start < end else [])

    @property
    def ended(self) -> bool:
        """Whether the stretch has been read."""
        return self._at >= self._end

    def poll(self) -> list[Any]:
        """The next records, some of which may come a little later than others; none when the stretch has ended.

        Raises:
            SourceUnavailable: the broker does not answer; what was given is not given again.
            OffsetOutOfRange: retention was faster.
        """
        while not self.ended:
            with translated(trouble=self._trouble):
                first = self._consumer.poll(_TIMEOUT_S)
                if first is None:
                    raise SourceUnavailable(
                        f"Reading {self._where} stopped: the broker sent nothing for {_TIMEOUT_S:.0f} s."
                    )
                # Alone, consume would wait until so many are there, or for its whole timeout.
                messages = [first, *self._consumer.consume(_AT_ONCE, 0)]
            if good := self._within(messages):
                return good
        return []

    def _within(self, messages: list[Any]) -> list[Any]:
        good: list[Any] = []
        for message in messages:
            error = message.error()
            if error is None:
                self._at = message.offset() + 1
                if message.offset() < self._end:
                    good.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._at = max(self._at, message.offset())
                # Markers of transactions may be all that was left.
                self._at = self._end if message.offset() >= self._end else self._at
            elif error.code() in OUT_OF_RANGE or not passes(error):
                raise error_of(error)
        return good

    def close(self) -> None:
        self._consumer.close()
