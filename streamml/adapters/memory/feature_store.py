"""A feature store in this process, for tests of one's own topologies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from streamml.batch.column import ColumnType, sealed
from streamml.errors import ConfigError, FeatureStoreDown, FeaturesUnavailable
from streamml.ports.feature_store import FeatureReply, FeatureRequest, FeatureSchema

Entity = tuple[Any, ...]
_Rows = Mapping[Entity | str | int, Mapping[str, Any]]
_Times = datetime | int | Mapping[Entity | str | int, datetime | int]
_Values = dict[tuple[bytes, ...], tuple[int, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Version:
    name: str
    schema: FeatureSchema
    values: _Values


class MemoryFeatureStore:
    """The port `FeatureStore` on dictionaries; loads are versions, and it can be unavailable on purpose."""

    def __init__(self) -> None:
        self._versions: dict[str, list[_Version]] = {}
        self._live: dict[FeatureSchema, _Values] = {}
        self._unavailable: str | None = None

    def load(
        self,
        schema: FeatureSchema,
        rows: _Rows,
        event_time: _Times,
        *,
        version: str | None = None,
    ) -> str:
        """Load a new version of a set and make it current; returns its name.

        Args:
            rows: values by entity; an entity is a tuple of key parts, or one key part.
            event_time: the time that the values describe: a datetime (naive is UTC), or µs since 1970; one for all, or by
                entity.

        Raises:
            ConfigError: an entity has other columns than the set.
        """
        values = _values(schema, rows, event_time)
        versions = self._versions.setdefault(schema.name, [])
        name = version or f"v{len(versions) + 1}"
        versions.append(_Version(name, schema, values))
        return name

    def write(self, schema: FeatureSchema, rows: _Rows, event_time: _Times) -> str:
        """Write values of a streaming set in place, never an older event time over a newer; returns the version.

        Raises:
            ConfigError: an entity has other columns than the set.
        """
        stored = self._live.setdefault(_typed(schema), {})
        for entity, written in _values(schema, rows, event_time).items():
            if entity not in stored or written[0] >= stored[entity][0]:
                stored[entity] = written
        return "live"

    def rollback(self, set_name: str) -> str:
        """Go back to the version before the current one; returns its name."""
        self._versions[set_name].pop()
        return self._versions[set_name][-1].name

    def fail(self, reason: str) -> None:
        """Be unavailable until `recover`."""
        self._unavailable = reason

    def recover(self) -> None:
        self._unavailable = None

    def lookup(self, requests: Sequence[FeatureRequest]) -> list[FeatureReply]:
        """See the port."""
        self.ping()
        return [self._reply(request) for request in requests]

    def ping(self) -> None:
        """See the port."""
        if self._unavailable is not None:
            raise FeatureStoreDown(self._unavailable)

    def close(self) -> None:
        """See the port."""

    def _reply(self, request: FeatureRequest) -> FeatureReply:
        current = self._current(request.schema)
        found = [current.values.get(tuple(entity)) for entity in request.entities]
        columns = {}
        for column, declared in request.schema.columns:
            filled = np.zeros((len(found), *declared.shape), declared.dtype)
            for index, entry in enumerate(found):
                if entry is not None:
                    filled[index] = entry[1][column]
            columns[column] = sealed(filled)
        present = np.array([entry is not None for entry in found], np.bool_)
        times = np.array([0 if entry is None else entry[0] for entry in found], np.int64)
        return FeatureReply(current.name, present, times, columns)

    def _current(self, schema: FeatureSchema) -> _Version:
        name = schema.name
        if schema.kind == "streaming":
            if _typed(schema) not in self._live:
                raise FeaturesUnavailable(f"Streaming feature set {name!r} was never written with the declared schema.")
            return _Version("live", schema, self._live[_typed(schema)])
        if not self._versions.get(name):
            raise FeaturesUnavailable(f"Feature set {name!r} was never loaded.")
        current = self._versions[name][-1]
        if _typed(current.schema) != _typed(schema):
            raise FeaturesUnavailable(
                f"Feature set {name!r} has another schema in its current version {current.name!r}."
            )
        return current


def _values(schema: FeatureSchema, rows: _Rows, event_time: _Times) -> _Values:
    wanted = {column for column, _ in schema.columns}
    odd = [entity for entity, values in rows.items() if values.keys() != wanted]
    if odd:
        raise ConfigError(
            f"{len(odd)} entities, {odd[0]!r} the first, have not exactly the columns of feature set "
            f"{schema.name!r}: {', '.join(sorted(wanted))}; give each a value for all of them."
        )
    times = event_time if isinstance(event_time, Mapping) else dict.fromkeys(rows, event_time)
    return {_key(entity): (_micros(times[entity]), values) for entity, values in rows.items()}


def _typed(schema: FeatureSchema) -> FeatureSchema:
    """The schema as far as it is stored: without defaults."""
    columns = tuple((name, ColumnType(declared.kind, declared.shape)) for name, declared in schema.columns)
    return FeatureSchema(schema.name, columns, schema.kind)


def _key(entity: Entity | str | int) -> tuple[bytes, ...]:
    parts = entity if isinstance(entity, tuple) else (entity,)
    return tuple(part if isinstance(part, bytes) else str(part).encode() for part in parts)


def _micros(moment: datetime | int) -> int:
    if isinstance(moment, int):
        return moment
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    gap = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (gap.days * 86_400 + gap.seconds) * 1_000_000 + gap.microseconds
