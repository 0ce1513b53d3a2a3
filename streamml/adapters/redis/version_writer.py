"""Writes the values of a version that nobody reads yet, as fast as the server takes them, and counts its entities."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from streamml.adapters.redis.connection import pack
from streamml.adapters.redis.line import Line
from streamml.adapters.redis.nodes import Nodes

COMMANDS_IN_FLIGHT: Final = 4
"""Chunks that are sent and not answered."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Entities that one command writes.

    Args:
        keys: each once.
        pairs: keys and values in turn; of a key that comes again, the last value remains.
    """

    keys: set[bytes]
    pairs: list[bytes]


class VersionWriter:
    """Sends chunks of values without waiting for each; counts entities.

    MSETNX says at no cost whether any entity of a group was written before. Only then its chunk is counted and written
    again, and with it those that were sent after it, so that the last row of an entity is what remains.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._line = Line(nodes)
        self._in_flight: deque[list[_Group]] = deque()
        self.entities = 0
        """Written so far, each counted once; right when `drain` has come back."""

    def write(self, keys: list[bytes], values: list[bytes]) -> None:
        """Send one chunk: a value for each key; a key that comes again gets the later one.

        Raises:
            FeatureStoreDown: the server does not answer, or answers with an error.
        """
        while len(self._in_flight) >= COMMANDS_IN_FLIGHT:
            self._settle_oldest()
        chunk = [_group(keys, values, places) for places in self._nodes.groups(keys)]
        self._line.send(*_commands("MSETNX", chunk))
        self._in_flight.append(chunk)

    def drain(self) -> None:
        """Wait until everything is written.

        Raises:
            FeatureStoreDown: as `write`.
        """
        while self._in_flight:
            self._settle_oldest()

    def close(self) -> None:
        """Close the connection, whatever is on its way."""
        self._line.close()

    def _settle_oldest(self) -> None:
        chunk, new = self._next()
        if all(new):
            return
        for late, was_new in [(chunk, new), *(self._next() for _ in range(len(self._in_flight)))]:
            known = [group for group, whether in zip(late, was_new, strict=True) if not whether]
            counts = [pack("EXISTS", *group.keys) for group in known]
            self.entities -= sum(self._nodes.exchange([group.pairs[0] for group in known], counts))
            self._nodes.exchange(*_commands("MSET", late))

    def _next(self) -> tuple[list[_Group], list[bool]]:
        """The oldest chunk, and of which of its groups no entity was there."""
        chunk = self._in_flight.popleft()
        self.entities += sum(len(group.keys) for group in chunk)
        return chunk, [reply == 1 for reply in self._line.read()]


def _group(keys: list[bytes], values: list[bytes], places: list[int]) -> _Group:
    pairs = [b""] * (2 * len(places))
    pairs[::2], pairs[1::2] = [keys[place] for place in places], [values[place] for place in places]
    return _Group(set(pairs[::2]), pairs)


def _commands(name: str, groups: list[_Group]) -> tuple[list[bytes], list[bytes]]:
    return [group.pairs[0] for group in groups], [pack(name, *group.pairs) for group in groups]
