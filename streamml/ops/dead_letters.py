"""Dead letters as people read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from streamml.adapters.kafka.tail import Located, read_topic
from streamml.engine.dead_letters import PREFIX
from streamml.errors import ConfigError
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter: the original record, and why and where it failed.

    Args:
        id: prediction id of the row that failed; ``#i`` for a child.
        topic, partition, offset: where the record is.
        step, error, message: what failed it.
        model: ``name@version``, empty where no model had to do with it.
        attempts: how often it was tried.
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


def read_dead_letters(topology: Topology, settings: Settings) -> Iterator[DeadLetter]:
    """All dead letters of a topology, the latest of each id; oldest first.

    Raises:
        TopologyError: the topic is missing.
        SourceUnavailable: the broker does not answer.
    """
    latest: dict[bytes, Located] = {}
    for one in read_topic(settings.client(), topology.dead_letters.topic):
        key = one.record.key or b""
        latest.pop(key, None)
        latest[key] = one
    for one in latest.values():
        letter = _parsed(one)
        if letter is not None:
            yield letter


def find_dead_letter(topology: Topology, settings: Settings, id: str) -> DeadLetter:
    """The dead letter of a prediction id.

    Raises:
        ConfigError: there is none.
    """
    for letter in read_dead_letters(topology, settings):
        if letter.id == id:
            return letter
    raise ConfigError(
        f"There is no dead letter {id!r} in {topology.dead_letters.topic}; `streamml dlq list` shows them."
    )


def by_reason(letters: list[DeadLetter]) -> list[tuple[str, str, int]]:
    """Step, error and count, the most frequent first."""
    counts = Counter((letter.step, letter.error) for letter in letters)
    return [(step, error, count) for (step, error), count in counts.most_common()]


def _parsed(one: Located) -> DeadLetter | None:
    """``None`` for what is no dead letter: a tombstone, or another program's record."""
    own = {name.removeprefix(PREFIX): value for name, value in one.record.headers if name.startswith(PREFIX)}
    texts = {name: (value or b"").decode(errors="replace") for name, value in own.items()}
    if texts.get("version") != "1":
        return None
    return DeadLetter(
        id=(one.record.key or b"").decode(errors="replace"),
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
        timestamp=one.record.timestamp,
        key=own.get("key"),
        value=one.record.value,
        headers=tuple((name, value) for name, value in one.record.headers if not name.startswith(PREFIX)),
    )
