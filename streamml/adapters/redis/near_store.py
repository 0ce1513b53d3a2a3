"""Reads feature values from Redis, and keeps those of some sets near until they change."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np

from streamml.adapters.redis.keys import entity_keys
from streamml.adapters.redis.layout import Layout
from streamml.adapters.redis.near import Entity, NearSet, Words
from streamml.adapters.redis.store import Current, RedisFeatureStore
from streamml.adapters.redis.tracking import Tracking, TrackingServer
from streamml.batch.column import Array
from streamml.batch.microbatch import Int
from streamml.clock import Clock, SystemClock
from streamml.errors import FeaturesUnavailable
from streamml.ports.feature_store import FeatureReply, FeatureRequest, NearCacheUse
from streamml.topology.features import FeatureSet

_ATTEMPTS: Final = 5


class NearFeatureStore(RedisFeatureStore):
    """`RedisFeatureStore` with a cache near to the worker for each set that declares one.

    One tracked connection serves one lookup at a time: what caches lack, and what the other sets need, in one round trip, and
    none where nothing is lacking. A lookup first reads what Redis has told of changes, without waiting, and forgets those
    values; a lost connection forgets all. Where the latest proof that the connection lives is older than ``max_staleness``, it
    has to give another before a value is used: so no lookup uses one that was replaced longer ago than that.

    Values of a version never change, those of a streaming set do; both are watched, and so are the pointers. An entity without
    a value is kept as such. What expires in Redis is forgotten when Redis deletes it; its age says before that it is stale.

    Args:
        sets: those that have a near cache; the other arguments are those of `RedisFeatureStore`.
        clock: what staleness is measured by.

    Raises:
        ConfigError: the URL or an option is not valid, or a schema cannot be stored. Nothing is connected yet.
    """

    def __init__(
        self,
        url: str,
        sets: Sequence[FeatureSet],
        *,
        timeout_s: float = 1.0,
        options: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(url, timeout_s=timeout_s, options=options)
        self._clock = clock or SystemClock()
        self._tracking = Tracking(TrackingServer(url, timeout_s, options), self._clock)
        self._near = {near.layout.pointer: near for near in map(NearSet.of, sets)}
        self._lock = threading.Lock()

    def lookup(self, requests: Sequence[FeatureRequest]) -> list[FeatureReply]:
        """Values for every request, see the port.

        Raises:
            ConfigError, FeaturesUnavailable: as `RedisFeatureStore.lookup`.
        """
        if not requests:
            return []
        layouts = [self._layout(request.schema) for request in requests]
        with self._lock:
            self._catch_up([self._near[one.pointer] for one in layouts if one.pointer in self._near])
            for _ in range(_ATTEMPTS):
                parts = [self._part(*about) for about in zip(layouts, requests, strict=True)]
                if self._fetched(parts):
                    return [part.reply() for part in parts]
        names = ", ".join(layout.schema.name for layout in layouts)
        raise FeaturesUnavailable(f"The current version of one of {names} changes all the time; try again.")

    def ping(self) -> None:
        """Whether the server answers, and tells of changes.

        Raises:
            FeaturesUnavailable: it does not.
            ConfigError: it is a node of a cluster.
        """
        with self._lock:
            self._catch_up([])
            self._tracking.confirm()

    def near_caches(self) -> list[NearCacheUse]:
        """What each cache has done so far."""
        return [near.use() for near in self._near.values()]

    def close(self) -> None:
        """Close all connections, the tracked one when its call ends."""
        super().close()
        with self._lock:
            self._tracking.close()

    def _catch_up(self, asked: Sequence[NearSet]) -> None:
        """Forget what has changed, and have it proved that this is all."""
        if not self._tracking.listen():
            for near in self._near.values():
                near.forget_all()
            self._tracking.connect()
        now = self._clock.now()
        if any(now - self._tracking.confirmed_at > near.max_staleness_s for near in asked):
            self._tracking.confirm()
        for key in self._tracking.told():
            for near in self._near.values():
                near.forget_all() if key is None else near.forget(key)
        for near in asked:
            near.staleness_s = max(0.0, now - self._tracking.confirmed_at)

    def _part(self, layout: Layout, request: FeatureRequest) -> _Part:
        near, current = self._near.get(layout.pointer), self._current.get(layout.pointer)
        if current is None:
            return _Part(layout, near, None, [layout.pointer])
        if near is None:
            return _Part(layout, None, current, [layout.pointer, *entity_keys(current.prefix, request.entities)])
        rows, missing = near.find(current, request.entities)
        lacking = [request.entities[place] for place in missing.tolist()]
        keys = [] if near.sure and not lacking else [layout.pointer, *entity_keys(current.prefix, lacking)]
        return _Part(layout, near, current, keys, lacking, rows, missing)

    def _fetched(self, parts: Sequence[_Part]) -> bool:
        """Ask for what the parts lack; whether all are whole, and of the versions that are current."""
        plain = [part for part in parts if part.near is None]
        near = [part for part in parts if part.near is not None]
        # What is told of changes by now is older than the values, or newer: it is heeded by the next lookup, before it uses them.
        answers = self._tracking.ask(_keys(plain), _keys(near))
        taken = [self._take(*about) for about in chain(_shared(plain, answers[0]), _shared(near, answers[1]))]
        return all(taken)

    def _take(self, part: _Part, values: list[Any]) -> bool:
        if not values:
            return True
        pointer = part.layout.pointer
        learned = self._learn({pointer: part.layout}, values[:1])
        self._check_schemas([part.layout], learned)
        if part.near is not None:
            part.near.sure = True
        if learned[pointer] is not part.current:
            return False
        rows, corrupt = part.layout.packed(values[1:])
        if corrupt:
            self._corrupt.count(corrupt, part.layout.schema.name, part.current.pointer.version)
        part.fill(rows)
        return True


@dataclass(slots=True)
class _Part:
    """One request on its way.

    Args:
        current: the version that is taken for the current one; ``None``: it is not known.
        keys: what is asked for, the pointer first; empty where nothing is.
        lacking: entities that are not near, at the places ``missing`` of the request.
        rows: packed values; those at ``missing`` come from Redis.
    """

    layout: Layout
    near: NearSet | None
    current: Current | None
    keys: list[bytes]
    lacking: Sequence[Entity] = ()
    rows: Words | None = None
    missing: Int | None = None

    def fill(self, found: Array) -> None:
        """With what Redis has."""
        words = found.view(np.uint64).reshape(len(found), self.layout.size // 8)
        if self.near is None or self.rows is None:
            self.rows = words
            return
        self.rows[self.missing] = words
        self.near.rows.put(self.lacking, words)

    def reply(self) -> FeatureReply:
        assert self.current is not None
        assert self.rows is not None
        found = self.layout.unpack(self.rows.view(self.layout.dtype).reshape(-1))
        return FeatureReply(self.current.pointer.version, found.present, found.event_time, found.columns)


def _keys(parts: Sequence[_Part]) -> list[bytes]:
    return list(chain.from_iterable(part.keys for part in parts))


def _shared(parts: Sequence[_Part], values: list[Any]) -> Iterator[tuple[_Part, list[Any]]]:
    """Each part's share of an answer."""
    start = 0
    for part in parts:
        end = start + len(part.keys)
        yield part, values[start:end]
        start = end
