"""How feature values lie in Redis: the names of keys. Pure functions; nothing here talks to a server.

Every other reader or writer can rely on this and on the bytes of a value (`streamml.adapters.redis.layout`).

Keys, all of them Redis strings but for the catalogue and the writers::

    streamml:{SET}:current                   pointer: which version is read
    streamml:{SET}:versions                  catalogue: a hash, version -> JSON about it
    streamml:{SET}:writers                   who writes into a streaming set: a hash, number -> JSON
    streamml:{SET}:live-HASH                 pointer of a streaming set: there is one for each schema ever written
    streamml:SET:VERSION:LENGTH:PART...      one entity: each key part as decimal byte length, ":", bytes

The braces are part of the keys: what is changed in one transaction has to be of one slot of a Redis Cluster, while entities are spread
over all of them. ``SET`` and ``VERSION`` are 1 to 64 of ``A-Z a-z 0-9 . _ -``, the first a letter or digit; a version of a loaded set
is none of ``current``, ``versions``, ``writers`` and ``live-`` with eight hexadecimal digits. A streaming set has one
version for each schema, called ``live-HASH``, the schema hash as eight hexadecimal digits in lower case. Key parts are UTF-8 text:
integers in decimal, dates as ``2013-01-31``. Route ``("JFK", "LAX")`` of set ``route`` in version ``v7`` is
``streamml:route:v7:3:JFK3:LAX``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

_POINTER: Final = re.compile(rb"streamml:\{([A-Za-z0-9][A-Za-z0-9._-]{0,63})\}:current")


class _Lengths(dict[int, bytes]):
    """Byte length -> its prefix in a key."""

    def __missing__(self, length: int) -> bytes:
        return b"%d:" % length


_LENGTH: Final = _Lengths((length, b"%d:" % length) for length in range(256)).__getitem__


def pointer_key(set_name: str) -> bytes:
    """Key of the record that says which version of a set is read."""
    return _about(set_name, "current")


def catalogue_key(set_name: str) -> bytes:
    """Key of the hash of all versions of a set."""
    return _about(set_name, "versions")


def writers_key(set_name: str) -> bytes:
    """Key of the hash of all writers of a streaming set."""
    return _about(set_name, "writers")


def live_key(set_name: str, version: str) -> bytes:
    """Key of the record that says that one version of a streaming set is written."""
    return _about(set_name, version)


def _about(set_name: str, what: str) -> bytes:
    # Only what is in braces decides the slot on Redis Cluster.
    return f"streamml:{{{set_name}}}:{what}".encode()


def entity_prefix(set_name: str, version: str) -> bytes:
    """What the keys of all entities of a version begin with."""
    return f"streamml:{set_name}:{version}:".encode()


def entity_keys(prefix: bytes, entities: Sequence[tuple[bytes, ...]]) -> list[bytes]:
    """The key of every entity.

    Raises:
        ValueError: the entities have different numbers of key parts.
    """
    return keys_of_parts(prefix, list(zip(*entities, strict=True)), len(entities))


def keys_of_sets(sets: Sequence[tuple[bytes, Sequence[tuple[bytes, ...]]]]) -> list[list[bytes]]:
    """The keys of several sets, each a prefix and its entities. What sets have in one, the same sequence of entities, is joined once.

    Raises:
        ValueError: entities of one set have different numbers of key parts.
    """
    distinct = {id(entities): entities for _, entities in sets}
    if len(distinct) == len(sets):
        return [entity_keys(prefix, entities) for prefix, entities in sets]
    joined = {place: entity_keys(b"", entities) for place, entities in distinct.items()}
    return [[prefix + key for key in joined[id(entities)]] for prefix, entities in sets]


def keys_of_parts(prefix: bytes, parts: Sequence[Sequence[bytes]], count: int) -> list[bytes]:
    """The same from one sequence per key part, each ``count`` long."""
    pieces: list[Any] = [[prefix] * count]
    for part in parts:
        pieces += (map(_LENGTH, map(len, part)), part)
    return list(map(b"".join, zip(*pieces, strict=True)))


def entity_parts(prefix: bytes, key: bytes) -> tuple[bytes, ...] | None:
    """The key parts of an entity, as `entity_keys` joined them; ``None`` where it did not."""
    rest, parts = key.removeprefix(prefix), []
    while rest:
        length, colon, behind = rest.partition(b":")
        if not colon or not length.isdigit() or int(length) > len(behind):
            return None
        parts.append(behind[: int(length)])
        rest = behind[int(length) :]
    return tuple(parts)


def set_of_pointer(key: bytes) -> str | None:
    """The set of which ``key`` is the pointer; ``None`` where it is another key."""
    found = _POINTER.fullmatch(key)
    return found[1].decode() if found else None
