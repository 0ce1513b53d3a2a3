"""Dead letters as people read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from streamml.adapters.kafka.tail import Located, read_topic
from streamml.engine.dead_letters import DeadLetter, read_letter
from streamml.errors import ConfigError
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology


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
        f"There is no dead letter {id!r} in {topology.dead_letters.topic}; `streamml dlq list` shows them."
    )


def place_of(letter: DeadLetter) -> str:
    """``partition/offset`` of the record, ``#i`` added for child ``i``: the id without the topic's."""
    _, child, number = letter.id.rpartition("#")
    return f"{_record_of(letter)}{child}{number if child else ''}"


def _record_of(letter: DeadLetter) -> str:
    return f"{letter.partition}/{letter.offset}"


def by_reason(letters: list[DeadLetter]) -> list[tuple[str, str, int]]:
    """Step, error and count, the most frequent first."""
    counts = Counter((letter.step, letter.error) for letter in letters)
    return [(step, error, count) for (step, error), count in counts.most_common()]
