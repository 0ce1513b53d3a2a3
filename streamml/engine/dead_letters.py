"""What a dead letter looks like (promise E3), and when there are too many of them (E4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streamml.batch.outcome import Failure
from streamml.ports.source import Headers, RawRecord, TopicPartition

PREFIX: Final = "streamml.dlq."


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as a record: the original value and headers, keyed by the prediction id."""

    key: bytes
    value: bytes | None
    headers: Headers
    timestamp: int


def compose_letter(
    failure: Failure, record: RawRecord, partition: TopicPartition, offset: int, id: str, *, worker: str, now: float
) -> Letter:
    """The dead letter of ``record``: value, headers and timestamp unchanged, the reasons added as headers."""
    added: dict[str, str] = {
        "version": "1",
        "topic": partition.topic,
        "partition": str(partition.partition),
        "offset": str(offset),
        "step": failure.step,
        "error": failure.error,
        "message": failure.message,
        "model": failure.model,
        "attempts": str(failure.attempts),
        "worker": worker,
        "time_ms": str(int(now * 1000)),
    }
    headers: Headers = [*record.headers, *((PREFIX + name, text.encode()) for name, text in added.items())]
    headers.append((PREFIX + "key", record.key))
    return Letter(id.encode(), record.value, headers, record.timestamp)


@dataclass(frozen=True, slots=True)
class DeadLetterLimit:
    """How many dead letters are still normal.

    Args:
        max_ratio: share of records.
        min_sample: records that the share is taken over.
    """

    max_ratio: float
    min_sample: int


class DeadLetterMeter:
    """Share of dead letters among the latest records, in windows of ``min_sample``."""

    def __init__(self, limit: DeadLetterLimit) -> None:
        self._limit = limit
        self._rows = 0
        self._letters = 0

    def exceeded(self, rows: int, letters: int) -> float | None:
        """Count ``rows`` more records with ``letters`` dead letters; the share if it is over the limit."""
        self._rows += rows
        self._letters += letters
        if self._rows < self._limit.min_sample:
            return None
        share = self._letters / self._rows
        self._rows = self._letters = 0
        return share if share > self._limit.max_ratio else None
