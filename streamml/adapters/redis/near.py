"""Values of a feature set that are kept in this process until they change. Pure; nothing here talks to a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streamml.adapters.redis.keys import entity_parts
from streamml.adapters.redis.layout import Layout
from streamml.adapters.redis.store import Current
from streamml.batch.microbatch import Int, Mask
from streamml.errors import ConfigError
from streamml.ports.feature_store import NearCacheUse
from streamml.topology.duration import seconds
from streamml.topology.features import FeatureSet

Entity = tuple[bytes, ...]
Words = npt.NDArray[np.uint64]
_MEGABYTE: Final = 1_000_000
_WORD_BYTES: Final = 8
# CPython 3.11 to 3.13: a dictionary that has just grown (120), an int (32), a tuple (40), two lists (18), size and use (9); of each
# key part its place (8), the object without its bytes (33), and what an allocation is rounded up by.
_ENTRY_BYTES: Final = 220
_PART_BYTES: Final = 56
_STRIDE: Final = 256


@dataclass(slots=True)
class NearSet:
    """The cache of one set, for one version at a time.

    Args:
        sure: whether the pointer that was read last is watched and has not changed.
        staleness_s: what the latest lookup used was the newest at most so long before.
    """

    layout: Layout
    rows: NearRows
    max_staleness_s: float
    sure: bool = False
    staleness_s: float = 0.0
    _prefix: bytes = b""
    _hits: int = 0
    _misses: int = 0
    _changes: int = 0
    _losses: int = 0

    @staticmethod
    def of(declared: FeatureSet) -> NearSet:
        """An empty cache of a set that has one.

        Raises:
            ConfigError: the set's name or a column cannot be stored, or there is no such memory.
        """
        assert declared.near_cache is not None
        layout = Layout.of(declared.schema)
        try:
            rows = NearRows(layout.size, declared.near_cache.max_mb * _MEGABYTE)
        except (MemoryError, ValueError):
            raise ConfigError(
                f"The near_cache of feature set {declared.name!r} has max_mb {declared.near_cache.max_mb:,}, which is more memory "
                "than there is; lower it."
            ) from None
        return NearSet(layout, rows, seconds(declared.near_cache.max_staleness))

    def find(self, current: Current, entities: Sequence[Entity]) -> tuple[Words, Int]:
        """See `NearRows.find`; nothing is here of another version than the one asked for before."""
        if current.prefix != self._prefix:
            self.rows.clear()
            self._prefix = current.prefix
        rows, missing = self.rows.find(entities)
        self._hits += len(entities) - len(missing)
        self._misses += len(missing)
        return rows, missing

    def forget(self, key: bytes) -> None:
        """What is stored under a key of Redis is not what it was."""
        if key == self.layout.pointer:
            self.sure = False
        elif self._prefix and key.startswith(self._prefix) and (entity := entity_parts(self._prefix, key)) is not None:
            self.rows.forget(entity)
            self._changes += 1

    def forget_all(self) -> None:
        """Nothing is watched any more."""
        self._losses += self.sure
        self.rows.clear()
        self.sure = False

    def use(self) -> NearCacheUse:
        """What it has done so far."""
        done = self._hits, self._misses, self._changes, self._losses
        return NearCacheUse(self.layout.schema.name, *done, self.rows.size_bytes, self.staleness_s)


class NearRows:
    """The values that were used lately, in at most ``max_bytes``: packed rows in one array, and the place of each entity's.

    Where there is no room, a clock's hand goes over the rows: it takes those that were not used since it passed them last. An
    entity without a value has a row like any other, one of zeros.

    Args:
        row_bytes: size of a value, a multiple of 8.
        max_bytes: of rows, keys and the index over them.
    """

    def __init__(self, row_bytes: int, max_bytes: int) -> None:
        self._row_bytes = row_bytes
        self._max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        rows = max(1, self._max_bytes // (self._row_bytes + _ENTRY_BYTES + _PART_BYTES))
        # Memory that nothing was written to is none that the process has: the system gives it at the first write.
        self._rows: Words = np.empty((rows, self._row_bytes // _WORD_BYTES), np.uint64)
        self._sizes: Int = np.zeros(rows, np.int64)
        self._lately: Mask = np.zeros(rows, np.bool_)
        self._places: dict[Any, int] = {}
        self._keys: list[Any] = []
        self._free: list[int] = []
        self._hand = 0
        self.size_bytes = 0
        """In use, at most ``max_bytes``."""

    def find(self, entities: Sequence[Entity]) -> tuple[Words, Int]:
        """A row for each entity, and the places of those that are not here, whose rows mean nothing.

        Returns:
            ``[n, row_bytes / 8]``, its own memory; ``[missing]`` in rising order.
        """
        keys = _index_keys(entities)
        places = np.fromiter(map(self._places.get, keys, repeat(-1)), np.int64, len(keys))
        missing = np.flatnonzero(places < 0)
        self._lately[places if not len(missing) else places[places >= 0]] = True
        return self._rows.take(places, axis=0, mode="clip"), missing

    def put(self, entities: Sequence[Entity], rows: Words) -> None:
        """Keep the row of each entity, none of which is here."""
        keys = _index_keys(entities)
        sizes = self._sizes_of(keys)
        # What does not fit at all is asked for each time.
        fits = int(np.searchsorted(np.cumsum(sizes), self._max_bytes, side="right"))
        keys, rows, sizes = keys[:fits], rows[:fits], sizes[:fits]
        added = int(sizes.sum())
        self._make_room(self.size_bytes + added - self._max_bytes)
        taken = self._take(keys)
        self._places.update(zip(keys, taken, strict=True))
        places = np.array(taken, np.int64)
        self._rows[places], self._sizes[places], self._lately[places] = rows, sizes, False
        self.size_bytes += added

    def forget(self, entity: Entity) -> None:
        """The entity's value is not what it was."""
        place = self._places.get(_index_keys([entity])[0])
        if place is not None:
            self._give_up([place])

    def _make_room(self, lacking: int) -> None:
        while lacking > 0:
            passed = slice(self._hand, self._hand + _STRIDE)
            taken = self._hand + np.flatnonzero((self._sizes[passed] > 0) & ~self._lately[passed])
            self._lately[passed] = False
            self._hand = passed.stop if passed.stop < len(self._keys) else 0
            lacking -= int(self._sizes[taken].sum())
            self._give_up(taken.tolist())

    def _take(self, keys: list[Any]) -> list[int]:
        """A row for each key, of those that nobody has."""
        reused = self._free[: len(keys)]
        del self._free[: len(keys)]
        for place, key in zip(reused, keys, strict=False):
            self._keys[place] = key
        end = len(self._keys)
        self._keys += keys[len(reused) :]
        return [*reused, *range(end, len(self._keys))]

    def _give_up(self, places: list[int]) -> None:
        for place in places:
            del self._places[self._keys[place]]
            self._keys[place] = None
        self.size_bytes -= int(self._sizes[places].sum())
        self._sizes[places] = 0
        self._free += places

    def _sizes_of(self, keys: list[Any]) -> Int:
        single = not keys or isinstance(keys[0], bytes)
        parts = 1 if single else len(keys[0])
        lengths = map(len, keys if single else map(b"".join, keys))
        return np.fromiter(lengths, np.int64, len(keys)) + (self._row_bytes + _ENTRY_BYTES + parts * _PART_BYTES)


def _index_keys(entities: Sequence[Entity]) -> list[Any]:
    """What entities are found by: a single part is hashed and compared faster without its tuple."""
    if entities and len(entities[0]) == 1:
        return list(map(itemgetter(0), entities))
    return list(entities)
