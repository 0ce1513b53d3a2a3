"""What a dead letter looks like (promise E3; docs/reference/dead-letters.md), and how many are too many (E4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from streamml.batch.outcome import Failure
from streamml.ports.source import Headers, RawRecord, TopicPartition

PREFIX: Final = "streamml.dlq."
_NULL: Final = "null"
_MOST_CHARACTERS: Final = 2000
# Of partition, offset and attempts.
_MOST: Final = (2**31 - 1, 2**63 - 1, 2**31 - 1)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as a record: the original value and headers, keyed by the prediction id."""

    key: bytes
    value: bytes
    headers: Headers
    timestamp: int


def compose_letter(
    failure: Failure, record: RawRecord, partition: TopicPartition, offset: int, id: str, *, worker: str, now: float
) -> Letter:
    """The dead letter of ``record``: value, headers and timestamp unchanged, the reasons added as headers.

    A record without a value gets an empty one and the header ``null``: in a compacted topic, a record without a value deletes
    what has its key, itself at last.
    """
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
    headers: Headers = [*record.headers, *((PREFIX + name, _header(text)) for name, text in added.items())]
    headers.append((PREFIX + "key", record.key))
    if record.value is None:
        headers.append((PREFIX + _NULL, b"1"))
    return Letter(id.encode(), record.value or b"", headers, record.timestamp)


def _header(text: str) -> bytes:
    """Bounded, and whatever a user's function put into its message."""
    cut = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} …"
    return cut.encode(errors="backslashreplace")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter: the original record, and why and where it failed.

    Args:
        id: prediction id of the row that failed; ``#i`` for a child.
        topic, partition, offset: where the record is.
        step, error, message: what failed it.
        model: ``name@version``, empty where no model had to do with it.
        attempts: number of the try that failed it; over 1 where something did not answer before.
        worker: who wrote the letter.
        time_ms: when, ms since 1970 UTC.
        timestamp: the record's own time, ms since 1970 UTC.
        key, value: of the record, byte for byte.
        headers: of the record.
    """

    id: str
    topic: str
    partition: int
    offset: int
    step: str
    error: str
    message: str
    model: str
    attempts: int
    worker: str
    time_ms: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def read_letter(record: RawRecord) -> DeadLetter | None:
    """Read what `compose_letter` wrote; ``None`` for what is no dead letter: a tombstone, or another program's record.

    Anybody may write into the topic, so a record that only says it is one must not keep the others from being read.
    """
    start = _start_of_ours(record.headers)
    own = {name.removeprefix(PREFIX): value for name, value in record.headers[start:] if name.startswith(PREFIX)}
    texts = {name: (value or b"").decode(errors="replace") for name, value in own.items()}
    if texts.get("version") != "1":
        return None
    try:
        letter = _letter(record, record.headers[:start], own, texts)
    except (KeyError, ValueError):
        return None
    numbers = (letter.partition, letter.offset, letter.attempts)
    return letter if all(0 <= one <= most for one, most in zip(numbers, _MOST, strict=True)) else None


def _letter(
    record: RawRecord, headers: Headers, own: Mapping[str, bytes | None], texts: Mapping[str, str]
) -> DeadLetter:
    return DeadLetter(
        id=(record.key or b"").decode(errors="replace"),
        topic=texts["topic"],
        partition=int(texts["partition"]),
        offset=int(texts["offset"]),
        step=texts["step"],
        error=texts["error"],
        message=texts["message"],
        model=texts["model"],
        attempts=int(texts["attempts"]),
        worker=texts["worker"],
        time_ms=int(texts["time_ms"]),
        timestamp=record.timestamp,
        key=own.get("key"),
        value=None if own.get(_NULL) == b"1" else record.value,
        headers=tuple(headers),
    )


def _start_of_ours(headers: Headers) -> int:
    """Where the headers of the record end and ours begin; the record's own may have such names, as those of a dead letter."""
    first = PREFIX + "version"
    return max((place for place, (name, _) in enumerate(headers) if name == first), default=len(headers))


@dataclass(frozen=True, slots=True)
class DeadLetterLimit:
    """How many dead letters are still normal.

    Args:
        max_ratio: share of records.
        min_sample: records that the share is taken over.
    """

    max_ratio: float
    min_sample: int
