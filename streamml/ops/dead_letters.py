"""Dead letters as people read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from streamml.adapters.kafka.sink import KafkaSink
from streamml.adapters.kafka.tail import Located, read_topic
from streamml.clock import SystemClock
from streamml.engine.dead_letters import DeadLetter, read_letter
from streamml.errors import ConfigError, FatalError, SourceUnavailable
from streamml.ports.sink import Delivered, OutboundRecords
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology

HIDDEN: Final = "•••"
_PURGE_S: Final = 30.0


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
        letter = read_letter(one.record)
        if letter is not None:
            yield letter


def find_dead_letter(topology: Topology, settings: Settings, id: str) -> DeadLetter:
    """The dead letter of a prediction id, or of ``partition/offset`` where that names only one.

    Raises:
        ConfigError: there is none, or several.
    """
    found = [one for one in read_dead_letters(topology, settings) if id in (one.id, place_of(one), _record_of(one))]
    exact = [one for one in found if one.id == id] or found
    if len(exact) == 1:
        return exact[0]
    if exact:
        ids = ", ".join(one.id for one in exact)
        raise ConfigError(f"{len(exact)} dead letters are of {id!r}; name one of them: {ids}.")
    raise ConfigError(
        f"There is no dead letter {id!r} in {topology.dead_letters.topic}; `streamml dlq list` with the same options shows them."
    )


def place_of(letter: DeadLetter) -> str:
    """``partition/offset`` of the record, ``#i`` added for child ``i``: the id without the topic's."""
    _, child, number = letter.id.rpartition("#")
    return f"{_record_of(letter)}{child}{number if child else ''}"


def _record_of(letter: DeadLetter) -> str:
    return f"{letter.partition}/{letter.offset}"


@dataclass(frozen=True, slots=True)
class Reason:
    """Dead letters of one step and error: how many, and when the first and the last were written (ms since 1970 UTC)."""

    step: str
    error: str
    count: int
    first_ms: int
    last_ms: int


def by_reason(letters: Iterable[DeadLetter]) -> list[Reason]:
    """The most frequent reason first."""
    times: dict[tuple[str, str], list[int]] = {}
    for letter in letters:
        times.setdefault((letter.step, letter.error), []).append(letter.time_ms)
    found = [Reason(step, error, len(each), min(each), max(each)) for (step, error), each in times.items()]
    return sorted(found, key=lambda one: -one.count)


def redacted(letter: DeadLetter, topology: Topology) -> DeadLetter:
    """The letter as it may be shown: without the values of the source's secret fields (promise E5).

    Of a value that is no JSON object nobody can say where the secret is, so nothing of it is shown; nor of its headers and its
    key, which often repeat a field.
    """
    secret = topology.source.secret
    if not secret:
        return letter
    headers = tuple((name, _hidden(value)) for name, value in letter.headers)
    return replace(letter, value=_without(secret, letter.value), key=_hidden(letter.key), headers=headers)


def _hidden(data: bytes | None) -> bytes | None:
    return None if data is None else HIDDEN.encode()


def _without(secret: Sequence[str], value: bytes | None) -> bytes | None:
    try:
        fields = json.loads(value or b"")
    except (ValueError, RecursionError):
        return _hidden(value)
    if not isinstance(fields, dict):
        return _hidden(value)
    return json.dumps({name: HIDDEN if name in secret else field for name, field in fields.items()}).encode()


def purge(topology: Topology, settings: Settings, letters: Iterable[DeadLetter]) -> int:
    """Take dead letters out of their topic, each by a tombstone; how many.

    Compaction removes them later; `read_dead_letters` leaves them out at once.

    Raises:
        FatalError: this client may not write to the topic.
        SourceUnavailable: the broker does not answer.
    """
    keys = [letter.id.encode() for letter in letters]
    if not keys:
        return 0
    sink = KafkaSink(settings.producer())
    sink.open()
    now_ms, count = int(SystemClock().now() * 1000), len(keys)
    records = OutboundRecords(topology.dead_letters.topic, keys, [None] * count, [[]] * count, [now_ms] * count)
    sink.send(1, [records])
    if sink.close(_PURGE_S):
        raise SourceUnavailable(f"The broker did not take all tombstones within {_PURGE_S:.0f} s; purge again.")
    for ended in sink.completions():
        if isinstance(ended, Delivered) and ended.refusals:
            raise FatalError(
                f"The broker refuses tombstones: {ended.refusals[0].message}. The dead-letter topic has to be compacted."
            )
    return count
