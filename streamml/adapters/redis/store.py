"""Reads feature values from Redis: one round trip for all sets of a lookup, pointers included."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from streamml.adapters.redis.catalogue import Pointer, unpack_pointer
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.keys import entity_prefix, keys_of_sets
from streamml.adapters.redis.layout import Layout, schema_lines
from streamml.adapters.redis.nodes import Nodes
from streamml.adapters.redis.versions import never_loaded, never_written
from streamml.errors import FeaturesUnavailable
from streamml.ports.feature_store import FeatureReply, FeatureRequest, FeatureSchema

_log = logging.getLogger(__name__)
# A pointer moves when somebody loads or rolls back; that it moves during so many lookups in a row is no accident.
_ATTEMPTS: Final = 5
_WARN_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Current:
    """The version of a set that was current when a reply last said so."""

    raw: bytes
    pointer: Pointer
    prefix: bytes


class RedisFeatureStore:
    """The port `FeatureStore` on Redis or Valkey, one server or a cluster.

    Pointers and values are asked for together, in one MGET, or in one round trip to each node of a cluster. Values of a
    version are there before the pointer to it and stay for an hour after, so a reply whose pointer has not moved is of the version that was current
    while it was made. If a pointer has moved since the last lookup, all is asked again with the new version's keys. A streaming set has a
    pointer and keys for each schema, so that each reader finds values of its own schema only. Threads share the store; each call has connections to itself, and after an error the next call connects
    anew. Values that are there but truncated, or of another format or schema, are not present; they are counted in
    `corrupt_values` and logged at most once a minute.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``; of a cluster some of its nodes, separated by commas.
        timeout_s: how long to wait for a connection, and for any part of a reply.
        options: further arguments of a redis-py connection, such as ``username``, ``password``, ``ssl_ca_certs``.

    Raises:
        ConfigError: the URL or an option is not valid. Nothing is connected yet.
    """

    def __init__(self, url: str, *, timeout_s: float = 1.0, options: Mapping[str, Any] | None = None) -> None:
        self._nodes = Nodes(Server(url, timeout_s, options))
        self._layouts: dict[str, Layout] = {}
        self._current: dict[bytes, Current] = {}
        self._corrupt = _CorruptValues()

    @property
    def corrupt_values(self) -> int:
        """Values so far that were there but not of the layout and schema of their version."""
        return self._corrupt.total

    def lookup(self, requests: Sequence[FeatureRequest]) -> list[FeatureReply]:
        """Values for every request, see the port.

        Raises:
            FeaturesUnavailable: the server does not answer in time, a set was never loaded, or its current version has
                another schema than the request.
            ConfigError: a schema cannot be stored at all.
        """
        if not requests:
            return []
        layouts = [self._layout(request.schema) for request in requests]
        pointers = {layout.pointer: layout for layout in layouts}
        known = [self._current.get(key) for key in pointers]
        raw: list[bytes | None] = [current.raw for current in known if current is not None]
        if len(raw) < len(pointers):
            raw = self._nodes.mget([*pointers])
        for _ in range(_ATTEMPTS):
            current = self._learn(pointers, raw)
            self._check_schemas(layouts, current)
            asked_for = zip(requests, layouts, strict=True)
            keys = keys_of_sets([(current[layout.pointer].prefix, one.entities) for one, layout in asked_for])
            values = self._nodes.mget([*pointers, *chain.from_iterable(keys)])
            asked, raw = raw, values[: len(pointers)]
            if raw == asked:
                return self._replies(requests, layouts, current, values[len(pointers) :])
        names = ", ".join(layout.schema.name for layout in pointers.values())
        raise FeaturesUnavailable(f"The current version of one of {names} changes all the time; try again.")

    def ping(self) -> None:
        """Whether every node answers.

        Raises:
            FeaturesUnavailable: one does not.
        """
        self._nodes.everywhere("PING")

    def close(self) -> None:
        """Close all connections, those in use when their call ends."""
        self._nodes.close()

    def _layout(self, schema: FeatureSchema) -> Layout:
        known = self._layouts.get(schema.name)
        if known is None or (known.schema is not schema and known.schema != schema):
            known = self._layouts[schema.name] = Layout.of(schema)
        return known

    def _learn(self, pointers: Mapping[bytes, Layout], raw: Sequence[bytes | None]) -> dict[bytes, Current]:
        """What is current according to these pointers; remembered for the next lookup."""
        current = {}
        for (key, layout), packed in zip(pointers.items(), raw, strict=True):
            known = self._current.get(key)
            if known is None or known.raw != packed:
                self._current.pop(key, None)
                known = self._current[key] = _read_pointer(layout, packed)
            current[key] = known
        return current

    def _check_schemas(self, layouts: list[Layout], current: Mapping[bytes, Current]) -> None:
        for layout in layouts:
            pointer = current[layout.pointer].pointer
            if layout.schema_hash != pointer.schema_hash:
                # Forgotten, so that the next lookup asks which version is current before it asks for values.
                self._current.pop(layout.pointer, None)
                raise FeaturesUnavailable(_other_schema(layout, pointer))

    def _replies(
        self,
        requests: Sequence[FeatureRequest],
        layouts: list[Layout],
        current: Mapping[bytes, Current],
        values: list[bytes | None],
    ) -> list[FeatureReply]:
        replies, start = [], 0
        for request, layout in zip(requests, layouts, strict=True):
            end = start + len(request.entities)
            decoded = layout.decode(values[start:end] if len(requests) > 1 else values)
            version = current[layout.pointer].pointer.version
            if decoded.corrupt:
                self._corrupt.count(decoded.corrupt, layout.schema.name, version)
            replies.append(FeatureReply(version, decoded.present, decoded.event_time, decoded.columns))
            start = end
        return replies


def _read_pointer(layout: Layout, raw: bytes | None) -> Current:
    set_name = layout.schema.name
    if raw is None:
        raise never_written(layout) if layout.schema.kind == "streaming" else never_loaded(set_name)
    try:
        pointer = unpack_pointer(raw)
    except ValueError as error:
        raise FeaturesUnavailable(f"The pointer of feature set {set_name!r} cannot be read: {error}") from error
    return Current(raw, pointer, entity_prefix(set_name, pointer.version))


def _other_schema(layout: Layout, pointer: Pointer) -> str:
    return (
        f"Feature set {layout.schema.name!r} has another schema in its current version {pointer.version!r} "
        f"({pointer.schema_hash:08x}: {', '.join(pointer.columns)}) than the topology declares "
        f"({layout.schema_hash:08x}: {', '.join(schema_lines(layout.schema))}); load it with the declared schema, "
        "or go back to a version that has it by streamml features rollback."
    )


class _CorruptValues:
    """Counts values that cannot be read, and says so once in a while."""

    def __init__(self) -> None:
        self.total = 0
        self._unsaid = 0
        self._last_said: float | None = None
        self._lock = threading.Lock()

    def count(self, values: int, set_name: str, version: str) -> None:
        now = time.monotonic()
        with self._lock:
            self.total += values
            self._unsaid += values
            if self._last_said is not None and now - self._last_said < _WARN_EVERY_S:
                return
            unsaid, self._unsaid, self._last_said = self._unsaid, 0, now
        _log.warning(
            "%d values are truncated or of another layout and count as missing, the last in version %s of feature set %s;"
            " look with streamml features show, and have the set written again.",
            unsaid,
            version,
            set_name,
        )
