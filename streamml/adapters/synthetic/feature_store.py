"""A feature store that asks another one once for each entity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamml.batch.column import concatenate, sealed
from streamml.ports.feature_store import FeatureReply, FeatureRequest, FeatureStore

_Entity = tuple[bytes, ...]


class RememberingStore:
    """Answers from memory what it was asked before; grows with the number of entities, and never forgets.

    Values stay as they were: for measurements, not for serving.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._known: dict[str, tuple[dict[_Entity, int], FeatureReply]] = {}

    def lookup(self, requests: Sequence[FeatureRequest]) -> list[FeatureReply]:
        """See `FeatureStore.lookup`."""
        unknown = [FeatureRequest(one.schema, self._unknown(one)) for one in requests]
        if any(one.entities for one in unknown):
            for request, reply in zip(unknown, self._store.lookup(unknown), strict=True):
                self._remember(request, reply)
        return [self._reply(request) for request in requests]

    def ping(self) -> None:
        """See `FeatureStore.ping`."""
        self._store.ping()

    def close(self) -> None:
        """The other store remains its owner's to close."""

    def _unknown(self, request: FeatureRequest) -> list[_Entity]:
        if request.schema.name not in self._known:
            return list(request.entities)
        places, _ = self._known[request.schema.name]
        return [entity for entity in request.entities if entity not in places]

    def _remember(self, request: FeatureRequest, reply: FeatureReply) -> None:
        name = request.schema.name
        if name not in self._known:
            self._known[name] = (dict(zip(request.entities, range(len(request.entities)), strict=True)), reply)
            return
        places, before = self._known[name]
        places.update(zip(request.entities, range(len(places), len(places) + len(request.entities)), strict=True))
        columns = {name: concatenate([before.columns[name], column]) for name, column in reply.columns.items()}
        self._known[name] = (
            places,
            FeatureReply(
                reply.version,
                np.concatenate([before.present, reply.present]),
                np.concatenate([before.event_time, reply.event_time]),
                columns,
            ),
        )

    def _reply(self, request: FeatureRequest) -> FeatureReply:
        places, known = self._known[request.schema.name]
        index = np.fromiter(map(places.__getitem__, request.entities), np.int64, len(request.entities))
        columns = {name: sealed(column[index]) for name, column in known.columns.items()}
        return FeatureReply(known.version, known.present[index], known.event_time[index], columns)
